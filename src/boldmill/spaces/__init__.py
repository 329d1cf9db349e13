"""Templates, atlases and surfaces; each names its space and every move between spaces is explicit."""
