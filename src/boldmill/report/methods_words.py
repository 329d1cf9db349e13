"""What the methods text says of every step and engine; citations as in :mod:`boldmill.report.citations`."""

from __future__ import annotations

ENGINES: dict[str, dict[str, str]] = {
    # step of preprocess.engines -> engine -> words
    "denoise": {"boldmill": "non-local means [@nlm; @dipy]", "ants": "non-local means of ANTs [@nlm; @ants]"},
    "n4": {"boldmill": "N4 [@n4] of SimpleITK [@simpleitk]", "ants": "N4 [@n4] of ANTs [@ants]"},
    "brain_mask": {
        "boldmill": "registering the whole head with the head template (affine: Mattes mutual information, SimpleITK "
        "[@mattes; @simpleitk]; SyN: cross-correlation, dipy [@syn; @dipy]) and carrying the template's mask over",
        "fsl": "BET [@bet] of FSL [@fsl]",
        "afni": "3dSkullStrip of AFNI [@afni]",
    },
    "normalise": {
        "boldmill": "an affine (Mattes mutual information, SimpleITK [@mattes; @simpleitk]) and symmetric "
        "diffeomorphic registration (SyN, cross-correlation, dipy [@syn; @dipy])",
        "ants": "affine and SyN registration of ANTs [@syn; @ants]",
    },
    "tissue": {
        "boldmill": "a three-class Gaussian mixture weighted by the warped tissue priors of the template [@unified]",
        "fsl": "FAST [@fast] of FSL [@fsl]",
    },
    "motion": {
        "boldmill": "inverse-compositional Gauss-Newton realignment [@baker]",
        "ants": "rigid registration of ANTs [@ants]",
        "fsl": "MCFLIRT [@mcflirt] of FSL [@fsl]",
        "afni": "3dvolreg of AFNI [@afni]",
    },
    "slice_timing": {
        "boldmill": "a Fourier shift of each voxel's detrended, mirrored series",
        "afni": "3dTshift of AFNI [@afni]",
    },
    "despike": {"boldmill": "the rule of 3dDespike [@afni]", "afni": "3dDespike of AFNI [@afni]"},
    "coregistration": {
        "boldmill": "mutual information from several starts (SimpleITK [@mattes; @simpleitk])",
        "ants": "rigid mutual-information registration of ANTs [@mattes; @ants]",
        "fsl": "FLIRT of FSL [@fsl]",
    },
}
SPACES = {"MNI152NLin6Asym": "mni6", "MNI152NLin2009": "mni2009"}
FIELDMAPS = {
    "phasediff": "a field map from a phase difference [@epi]",
    "phases": "a field map from two phase images [@epi]",
    "fieldmap": "a measured field map [@epi]",
    "epi": "an EPI of opposite phase encoding [@topup]",
}
MOTION = {
    "none": "",
    "6": "6 motion parameters",
    "12": "6 motion parameters and their derivatives",
    "24": "6 motion parameters, their derivatives, and the squares of both [@satterthwaite]",
    "24lag": "6 motion parameters, those of the volume before, and the squares of both [@friston24]",
}
