"""BrainMass: masked-ROI modelling and latent alignment on functional connectivity."""
