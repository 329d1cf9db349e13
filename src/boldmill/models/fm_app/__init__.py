"""FM-APP: any-phenotype prediction from text, fMRI to sMRI transfer."""
