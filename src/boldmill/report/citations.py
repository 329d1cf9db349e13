"""The works the methods text cites, as BibTeX and as one line each, and text that cites them as markdown and HTML.

Text carries citations as ``[@key; @key]`` (pandoc): :func:`markdown` keeps them, :func:`as_html` makes links of them.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass

CITATION = re.compile(r" ?\[(@\w+(?:; @\w+)*)\]")
Paragraphs = list[tuple[str, str]]
"""Heading and text."""


@dataclass(frozen=True, slots=True)
class Work:
    """One journal article (or, without ``volume``, a preprint or software)."""

    authors: str
    year: int
    title: str
    journal: str
    volume: str
    pages: str
    doi: str

    @property
    def short(self) -> str:
        """First author and year.

        >>> WORKS["bbr"].short
        'Greve 2009'
        """
        return f"{self.authors.partition(',')[0]} {self.year}"

    @property
    def line(self) -> str:
        """The work on one line."""
        where = self.journal + (f" {self.volume}" if self.volume else "") + (f":{self.pages}" if self.pages else "")
        return f"{self.authors} ({self.year}). {self.title}. {where}. doi:{self.doi}"

    def bibtex(self, key: str) -> str:
        """The BibTeX entry."""
        rows = {
            "author": self.authors.replace("; ", " and ").replace(" et al.", " and others"),
            "title": f"{{{self.title}}}",
            "journal": self.journal,
            "year": str(self.year),
            "volume": self.volume,
            "pages": self.pages.replace("-", "--"),
            "doi": self.doi,
        }
        body = "".join(f"  {name} = {{{value}}},\n" for name, value in rows.items() if value)
        return f"@article{{{key},\n{body}}}\n"


def _work(line: str) -> Work:
    authors, year, title, journal, volume, pages, doi = (part.strip() for part in line.split("|"))
    return Work(authors, int(year), title, journal, volume, pages, doi)


_TABLE = """
afni | Cox, R. W.; Hyde, J. S. | 1997 | Software tools for analysis and visualization of fMRI data | NMR in Biomedicine | 10 | 171-178 | 10.1002/(SICI)1099-1492(199706/08)10:4/5<171::AID-NBM453>3.0.CO;2-L
alff | Zang, Y.-F. et al. | 2007 | Altered baseline brain activity in children with ADHD revealed by resting-state functional MRI | Brain and Development | 29 | 83-91 | 10.1016/j.braindev.2006.07.002
ants | Tustison, N. J. et al. | 2021 | The ANTsX ecosystem for quantitative biological and medical imaging | Scientific Reports | 11 | 9068 | 10.1038/s41598-021-87564-6
baker | Baker, S.; Matthews, I. | 2004 | Lucas-Kanade 20 years on: a unifying framework | International Journal of Computer Vision | 56 | 221-255 | 10.1023/B:VISI.0000011205.11775.fd
bbr | Greve, D. N.; Fischl, B. | 2009 | Accurate and robust brain image alignment using boundary-based registration | NeuroImage | 48 | 63-72 | 10.1016/j.neuroimage.2009.06.060
bet | Smith, S. M. | 2002 | Fast robust automated brain extraction | Human Brain Mapping | 17 | 143-155 | 10.1002/hbm.10062
bids | Gorgolewski, K. J. et al. | 2016 | The brain imaging data structure, a format for organizing and describing outputs of neuroimaging experiments | Scientific Data | 3 | 160044 | 10.1038/sdata.2016.44
ciric | Ciric, R. et al. | 2017 | Benchmarking of participant-level confound regression strategies for the control of motion artifact in studies of functional connectivity | NeuroImage | 154 | 174-187 | 10.1016/j.neuroimage.2017.03.020
compcor | Behzadi, Y.; Restom, K.; Liau, J.; Liu, T. T. | 2007 | A component based noise correction method (CompCor) for BOLD and perfusion based fMRI | NeuroImage | 37 | 90-101 | 10.1016/j.neuroimage.2007.04.042
dipy | Garyfallidis, E. et al. | 2014 | Dipy, a library for the analysis of diffusion MRI data | Frontiers in Neuroinformatics | 8 | 8 | 10.3389/fninf.2014.00008
epi | Jezzard, P.; Balaban, R. S. | 1995 | Correction for geometric distortion in echo planar images from B0 field variations | Magnetic Resonance in Medicine | 34 | 65-73 | 10.1002/mrm.1910340111
falff | Zou, Q.-H. et al. | 2008 | An improved approach to detection of amplitude of low-frequency fluctuation (ALFF) for resting-state fMRI: fractional ALFF | Journal of Neuroscience Methods | 172 | 137-141 | 10.1016/j.jneumeth.2008.04.012
fast | Zhang, Y.; Brady, M.; Smith, S. | 2001 | Segmentation of brain MR images through a hidden Markov random field model and the expectation-maximization algorithm | IEEE Transactions on Medical Imaging | 20 | 45-57 | 10.1109/42.906424
fd | Power, J. D.; Barnes, K. A.; Snyder, A. Z.; Schlaggar, B. L.; Petersen, S. E. | 2012 | Spurious but systematic correlations in functional connectivity MRI networks arise from subject motion | NeuroImage | 59 | 2142-2154 | 10.1016/j.neuroimage.2011.10.018
friston24 | Friston, K. J.; Williams, S.; Howard, R.; Frackowiak, R. S. J.; Turner, R. | 1996 | Movement-related effects in fMRI time-series | Magnetic Resonance in Medicine | 35 | 346-355 | 10.1002/mrm.1910350312
fsl | Jenkinson, M.; Beckmann, C. F.; Behrens, T. E. J.; Woolrich, M. W.; Smith, S. M. | 2012 | FSL | NeuroImage | 62 | 782-790 | 10.1016/j.neuroimage.2011.09.015
lindquist | Lindquist, M. A.; Geuter, S.; Wager, T. D.; Caffo, B. S. | 2019 | Modular preprocessing pipelines can reintroduce artifacts into fMRI data | Human Brain Mapping | 40 | 2358-2376 | 10.1002/hbm.24528
mattes | Mattes, D.; Haynor, D. R.; Vesselle, H.; Lewellen, T. K.; Eubank, W. | 2003 | PET-CT image registration in the chest using free-form deformations | IEEE Transactions on Medical Imaging | 22 | 120-128 | 10.1109/TMI.2003.809072
mcflirt | Jenkinson, M.; Bannister, P.; Brady, M.; Smith, S. | 2002 | Improved optimization for the robust and accurate linear registration and motion correction of brain images | NeuroImage | 17 | 825-841 | 10.1006/nimg.2002.1132
mni2009 | Fonov, V. S.; Evans, A. C.; McKinstry, R. C.; Almli, C. R.; Collins, D. L. | 2009 | Unbiased nonlinear average age-appropriate brain templates from birth to adulthood | NeuroImage | 47 | S102 | 10.1016/S1053-8119(09)70884-5
mni6 | Evans, A. C.; Janke, A. L.; Collins, D. L.; Baillet, S. | 2012 | Brain templates and atlases | NeuroImage | 62 | 911-922 | 10.1016/j.neuroimage.2012.01.024
muschelli | Muschelli, J. et al. | 2014 | Reduction of motion-related artifacts in resting state fMRI using aCompCor | NeuroImage | 96 | 22-35 | 10.1016/j.neuroimage.2014.03.028
n4 | Tustison, N. J. et al. | 2010 | N4ITK: improved N3 bias correction | IEEE Transactions on Medical Imaging | 29 | 1310-1320 | 10.1109/TMI.2010.2046908
nilearn | Abraham, A. et al. | 2014 | Machine learning for neuroimaging with scikit-learn | Frontiers in Neuroinformatics | 8 | 14 | 10.3389/fninf.2014.00014
nipype | Gorgolewski, K. et al. | 2011 | Nipype: a flexible, lightweight and extensible neuroimaging data processing framework in Python | Frontiers in Neuroinformatics | 5 | 13 | 10.3389/fninf.2011.00013
nlm | Manjon, J. V.; Coupe, P.; Marti-Bonmati, L.; Collins, D. L.; Robles, M. | 2010 | Adaptive non-local means denoising of MR images with spatially varying noise levels | Journal of Magnetic Resonance Imaging | 31 | 192-203 | 10.1002/jmri.22003
power2014 | Power, J. D. et al. | 2014 | Methods to detect, characterize, and remove motion artifact in resting state fMRI | NeuroImage | 84 | 320-341 | 10.1016/j.neuroimage.2013.08.048
power2017 | Power, J. D.; Plitt, M.; Kundu, P.; Bandettini, P. A.; Martin, A. | 2017 | Temporal interpolation alters motion in fMRI scans: magnitudes and consequences for artifact detection | PLOS ONE | 12 | e0182939 | 10.1371/journal.pone.0182939
reho | Zang, Y.; Jiang, T.; Lu, Y.; He, Y.; Tian, L. | 2004 | Regional homogeneity approach to fMRI data analysis | NeuroImage | 22 | 394-400 | 10.1016/j.neuroimage.2003.12.030
satterthwaite | Satterthwaite, T. D. et al. | 2013 | An improved framework for confound regression and filtering for control of motion artifact in the preprocessing of resting-state functional connectivity data | NeuroImage | 64 | 240-256 | 10.1016/j.neuroimage.2012.08.052
simpleitk | Lowekamp, B. C.; Chen, D. T.; Ibanez, L.; Blezek, D. | 2013 | The design of SimpleITK | Frontiers in Neuroinformatics | 7 | 45 | 10.3389/fninf.2013.00045
sklearn | Pedregosa, F. et al. | 2011 | Scikit-learn: machine learning in Python | Journal of Machine Learning Research | 12 | 2825-2830 |
sladky | Sladky, R. et al. | 2011 | Slice-timing effects and their correction in functional MRI | NeuroImage | 58 | 588-594 | 10.1016/j.neuroimage.2011.06.078
stddvars | Nichols, T. E. | 2017 | Notes on creating a standardized version of DVARS | arXiv | | 1704.01469 | 10.48550/arXiv.1704.01469
syn | Avants, B. B.; Epstein, C. L.; Grossman, M.; Gee, J. C. | 2008 | Symmetric diffeomorphic image registration with cross-correlation: evaluating automated labeling of elderly and neurodegenerative brain | Medical Image Analysis | 12 | 26-41 | 10.1016/j.media.2007.06.004
templateflow | Ciric, R. et al. | 2022 | TemplateFlow: FAIR-sharing of multi-scale, multi-species brain models | Nature Methods | 19 | 1568-1571 | 10.1038/s41592-022-01681-2
topup | Andersson, J. L. R.; Skare, S.; Ashburner, J. | 2003 | How to correct susceptibility distortions in spin-echo echo-planar images: application to diffusion tensor imaging | NeuroImage | 20 | 870-888 | 10.1016/S1053-8119(03)00336-7
unified | Ashburner, J.; Friston, K. J. | 2005 | Unified segmentation | NeuroImage | 26 | 839-851 | 10.1016/j.neuroimage.2005.02.018
"""  # noqa: E501

WORKS: dict[str, Work] = {
    key.strip(): _work(rest) for key, _, rest in (line.partition("|") for line in _TABLE.strip().splitlines())
}


def bibliography(keys: Iterable[str]) -> str:
    """Return the BibTeX file of some works, sorted by key."""
    return "\n".join(WORKS[key].bibtex(key) for key in sorted(set(keys)))


def cited(text: Paragraphs) -> list[str]:
    """Return the keys that a text cites, in order of first use."""
    keys: dict[str, None] = {}
    for _, words in text:
        for found in CITATION.finditer(words):
            keys.update(dict.fromkeys(found.group(1).replace("@", "").split("; ")))
    return list(keys)


def markdown(text: Paragraphs, title: str) -> str:
    """Return the text as pandoc markdown with its references."""
    body = "\n\n".join(f"## {heading}\n\n{words}" for heading, words in text)
    works = "\n".join(f"- [@{key}] {WORKS[key].line}" for key in sorted(cited(text)))
    return f"# {title}\n\n{body}\n\n## References\n\n{works}\n"


def as_html(words: str) -> str:
    """Return one paragraph as HTML; citations become links to ``#ref-<key>``."""

    def link(found: re.Match[str]) -> str:
        keys = found.group(1).replace("@", "").split("; ")
        return " (" + "; ".join(f'<a href="#ref-{key}">{html.escape(WORKS[key].short)}</a>' for key in keys) + ")"

    return CITATION.sub(link, html.escape(words))
