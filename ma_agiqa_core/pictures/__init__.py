"""Every kind of picture in: files, folders, PIL images, arrays and tensors."""
