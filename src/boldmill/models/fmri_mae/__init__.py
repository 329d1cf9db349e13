"""fMRI-MAE: masked autoencoder on flat-map video."""
