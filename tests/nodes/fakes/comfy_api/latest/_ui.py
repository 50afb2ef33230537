"""The fake of what a node shows on itself."""

import json
import os
import random

import folder_paths
import numpy as np
import PIL.Image
from comfy.cli_args import args
from PIL.PngImagePlugin import PngInfo

from ._io import FolderType


class SavedResult(dict):
    def __init__(self, filename, subfolder, type):
        super().__init__(filename=filename, subfolder=subfolder, type=type.value)


class SavedImages:
    def __init__(self, results, is_animated=False):
        self.results, self.is_animated = results, is_animated

    def as_dict(self):
        return {"images": self.results, **({"animated": (True,)} if self.is_animated else {})}


class ImageSaveHelper:
    @staticmethod
    def _convert_tensor_to_pil(image_tensor):
        return PIL.Image.fromarray(np.clip(255.0 * image_tensor.cpu().numpy(), 0, 255).astype(np.uint8))

    @staticmethod
    def _create_png_metadata(cls):
        if args.disable_metadata or cls is None or not cls.hidden:
            return None
        metadata = PngInfo()
        if cls.hidden.prompt:
            metadata.add_text("prompt", json.dumps(cls.hidden.prompt))
        for name, value in (cls.hidden.extra_pnginfo or {}).items():
            metadata.add_text(name, json.dumps(value))
        return metadata

    @staticmethod
    def save_images(images, filename_prefix, folder_type, cls, compress_level=4):
        roots = {FolderType.output: folder_paths.get_output_directory, FolderType.temp: folder_paths.get_temp_directory}
        folder, filename, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, roots[folder_type](), images[0].shape[1], images[0].shape[0]
        )
        results = []
        for number, picture in enumerate(images):
            name = f"{filename.replace('%batch_num%', str(number))}_{counter + number:05}_.png"
            metadata = ImageSaveHelper._create_png_metadata(cls)
            ImageSaveHelper._convert_tensor_to_pil(picture).save(
                os.path.join(folder, name), pnginfo=metadata, compress_level=compress_level
            )
            results.append(SavedResult(name, subfolder, folder_type))
        return results

    @staticmethod
    def get_save_images_ui(images, filename_prefix, cls, compress_level=4):
        return SavedImages(ImageSaveHelper.save_images(images, filename_prefix, FolderType.output, cls, compress_level))


class PreviewImage:
    def __init__(self, image, animated=False, cls=None, **kwargs):
        prefix = "ComfyUI_temp_" + "".join(random.choice("abcdefgh") for _ in range(5))
        self.values = ImageSaveHelper.save_images(image, prefix, FolderType.temp, cls, compress_level=1)
        self.animated = animated

    def as_dict(self):
        return {"images": self.values, "animated": (self.animated,)}


class PreviewText:
    def __init__(self, value, **kwargs):
        self.value = value

    def as_dict(self):
        return {"text": (self.value,)}
