"""The fake of how a node's method is called: on a clone of its class that cannot be written to."""


def make_locked_method_func(type_obj, func, class_clone):
    method = getattr(type_obj, func).__func__
    return lambda **inputs: method(class_clone, **inputs)
