"""`python -m genconv`: what there is."""

from genconv import __version__

print(
    f"""genconv {__version__}: train, sample and use energy-based models of images

  python -m genconv.train   --config NAME     teach an energy; digits by default, in minutes
  python -m genconv.sample  CHECKPOINT        draw images from it
  python -m genconv.edit    inpaint|...       recover images from what is known, compose energies
  python -m genconv.eval    quality|steps ... FID and other numbers of samples
  python -m genconv.eval    ood|score ...     tell images that belong from those that do not
  python -m genconv.export  CHECKPOINT DIR    write it as safetensors + JSON, to share

Each explains itself with --help."""
)
