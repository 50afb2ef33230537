"""The fake of ComfyUI's folders; a test points them elsewhere with `set_base`."""

import os
import tempfile

base_path = tempfile.mkdtemp(prefix="fake_comfyui_")
models_dir = os.path.join(base_path, "models")
folder_names_and_paths = {"vae_approx": ([os.path.join(models_dir, "vae_approx")], {".safetensors", ".pth"})}
output_directory = os.path.join(base_path, "output")
temp_directory = os.path.join(base_path, "temp")
input_directory = os.path.join(base_path, "input")
user_directory = os.path.join(base_path, "user")


def add_model_folder_path(folder_name, full_folder_path, is_default=False):
    paths, _ = folder_names_and_paths.setdefault(folder_name, ([], set()))
    if full_folder_path in paths:
        paths.remove(full_folder_path) if is_default else None
    if full_folder_path not in paths:
        paths.insert(0, full_folder_path) if is_default else paths.append(full_folder_path)


def get_folder_paths(folder_name):
    return list(folder_names_and_paths[folder_name][0])


def get_filename_list(folder_name):
    paths, extensions = folder_names_and_paths[folder_name]
    found = set()
    for root in paths:
        for folder, _, names in os.walk(root, followlinks=True):
            found.update(os.path.relpath(os.path.join(folder, name), root) for name in names)
    return sorted(name for name in found if not extensions or os.path.splitext(name)[1].lower() in extensions)


def get_full_path(folder_name, filename):
    paths = (os.path.join(root, filename) for root in folder_names_and_paths[folder_name][0])
    return next((path for path in paths if os.path.isfile(path)), None)


def get_full_path_or_raise(folder_name, filename):
    if (path := get_full_path(folder_name, filename)) is None:
        raise FileNotFoundError(f"Model in folder '{folder_name}' with filename '{filename}' not found.")
    return path


def get_output_directory():
    return output_directory


def set_output_directory(output_dir):
    global output_directory
    output_directory = output_dir


def get_temp_directory():
    return temp_directory


def set_temp_directory(temp_dir):
    global temp_directory
    temp_directory = temp_dir


def get_user_directory():
    return user_directory


def get_input_directory():
    return input_directory


def get_save_image_path(filename_prefix, output_dir, image_width=0, image_height=0):
    filename_prefix = filename_prefix.replace("%width%", str(image_width)).replace("%height%", str(image_height))
    subfolder, filename = os.path.split(os.path.normpath(filename_prefix))
    folder = os.path.join(output_dir, subfolder)
    if os.path.commonpath((output_dir, os.path.abspath(folder))) != output_dir:
        raise Exception("Saving image outside the output folder is not allowed.")
    os.makedirs(folder, exist_ok=True)
    counters = [
        int(name[len(filename) + 1 :].split("_")[0])
        for name in os.listdir(folder)
        if name.startswith(f"{filename}_") and name[len(filename) + 1 :].split("_")[0].isdigit()
    ]
    return folder, filename, max(counters, default=0) + 1, subfolder, filename_prefix
