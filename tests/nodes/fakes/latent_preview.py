"""The fake of pictures on a node while it samples: there are none, as with --preview-method none."""


def get_previewer(device, latent_format):
    return None
