"""The fake of schemas, inputs, outputs and nodes. Signatures are the true ones of ComfyUI 0.33.0."""

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from comfy_execution.graph_utils import ExecutionBlocker


class FolderType(str, Enum):
    input = "input"
    output = "output"
    temp = "temp"


class NumberDisplay(str, Enum):
    number = "number"
    slider = "slider"


class Hidden(str, Enum):
    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"
    dynprompt = "DYNPROMPT"
    auth_token_comfy_org = "AUTH_TOKEN_COMFY_ORG"
    api_key_comfy_org = "API_KEY_COMFY_ORG"
    comfy_usage_source = "COMFY_USAGE_SOURCE"


class HiddenHolder:
    def __init__(
        self,
        unique_id,
        prompt,
        extra_pnginfo,
        dynprompt,
        auth_token_comfy_org,
        api_key_comfy_org,
        comfy_usage_source=None,
        **kwargs,
    ):
        self.unique_id, self.prompt, self.extra_pnginfo, self.dynprompt = unique_id, prompt, extra_pnginfo, dynprompt

    def __getattr__(self, key):
        return None


class Input:
    io_type = "*"

    def __init__(
        self,
        id,
        display_name=None,
        optional=False,
        tooltip=None,
        lazy=None,
        extra_dict=None,
        raw_link=None,
        advanced=None,
    ):
        self.id, self.display_name, self.optional, self.tooltip = id, display_name, optional, tooltip
        self.lazy, self.extra_dict, self.rawLink, self.advanced = lazy, extra_dict or {}, raw_link, advanced

    def get_io_type(self):
        return self.io_type


class WidgetInput(Input):
    def __init__(
        self,
        id,
        display_name=None,
        optional=False,
        tooltip=None,
        lazy=None,
        default=None,
        socketless=None,
        widget_type=None,
        force_input=None,
        extra_dict=None,
        raw_link=None,
        advanced=None,
    ):
        super().__init__(id, display_name, optional, tooltip, lazy, extra_dict, raw_link, advanced)
        self.default, self.socketless, self.widget_type, self.force_input = (
            default,
            socketless,
            widget_type,
            force_input,
        )


class Output:
    io_type = "*"

    def __init__(self, id=None, display_name=None, tooltip=None, is_output_list=False):
        self.id, self.tooltip, self.is_output_list = id, tooltip, is_output_list
        self.display_name = display_name or id


def Custom(io_type):
    name = io_type.title().replace("_", "")
    return type(
        name,
        (),
        {
            "io_type": io_type,
            "Type": Any,
            "Input": type("Input", (Input,), {"io_type": io_type}),
            "Output": type("Output", (Output,), {"io_type": io_type}),
        },
    )


Image, Mask, Latent = Custom("IMAGE"), Custom("MASK"), Custom("LATENT")
Model, Vae, Clip, Conditioning = Custom("MODEL"), Custom("VAE"), Custom("CLIP"), Custom("CONDITIONING")
Noise, Guider, Sampler, Sigmas = Custom("NOISE"), Custom("GUIDER"), Custom("SAMPLER"), Custom("SIGMAS")
Video = Custom("VIDEO")
AnyType = Custom("*")
Image.Type = Mask.Type = torch.Tensor


class Boolean(Custom("BOOLEAN")):
    class Input(WidgetInput):
        io_type = "BOOLEAN"

        def __init__(
            self,
            id,
            display_name=None,
            optional=False,
            tooltip=None,
            lazy=None,
            default=None,
            label_on=None,
            label_off=None,
            socketless=None,
            force_input=None,
            extra_dict=None,
            raw_link=None,
            advanced=None,
        ):
            more = extra_dict, raw_link, advanced
            super().__init__(id, display_name, optional, tooltip, lazy, default, socketless, None, force_input, *more)


class Int(Custom("INT")):
    class Input(WidgetInput):
        io_type = "INT"

        def __init__(
            self,
            id,
            display_name=None,
            optional=False,
            tooltip=None,
            lazy=None,
            default=None,
            min=None,
            max=None,
            step=None,
            control_after_generate=None,
            display_mode=None,
            socketless=None,
            force_input=None,
            extra_dict=None,
            raw_link=None,
            advanced=None,
        ):
            more = extra_dict, raw_link, advanced
            super().__init__(id, display_name, optional, tooltip, lazy, default, socketless, None, force_input, *more)
            self.min, self.max, self.step, self.control_after_generate = min, max, step, control_after_generate


class Float(Custom("FLOAT")):
    class Input(WidgetInput):
        io_type = "FLOAT"

        def __init__(
            self,
            id,
            display_name=None,
            optional=False,
            tooltip=None,
            lazy=None,
            default=None,
            min=None,
            max=None,
            step=None,
            round=None,
            display_mode=None,
            gradient_stops=None,
            socketless=None,
            force_input=None,
            extra_dict=None,
            raw_link=None,
            advanced=None,
        ):
            more = extra_dict, raw_link, advanced
            super().__init__(id, display_name, optional, tooltip, lazy, default, socketless, None, force_input, *more)
            self.min, self.max, self.step, self.round = min, max, step, round


class String(Custom("STRING")):
    class Input(WidgetInput):
        io_type = "STRING"

        def __init__(
            self,
            id,
            display_name=None,
            optional=False,
            tooltip=None,
            lazy=None,
            multiline=False,
            placeholder=None,
            default=None,
            dynamic_prompts=None,
            socketless=None,
            force_input=None,
            extra_dict=None,
            raw_link=None,
            advanced=None,
        ):
            more = extra_dict, raw_link, advanced
            super().__init__(id, display_name, optional, tooltip, lazy, default, socketless, None, force_input, *more)
            self.multiline, self.placeholder, self.dynamic_prompts = multiline, placeholder, dynamic_prompts


class Combo(Custom("COMBO")):
    class Input(WidgetInput):
        io_type = "COMBO"

        def __init__(
            self,
            id,
            options=None,
            display_name=None,
            optional=False,
            tooltip=None,
            lazy=None,
            default=None,
            control_after_generate=None,
            upload=None,
            image_folder=None,
            remote=None,
            socketless=None,
            extra_dict=None,
            raw_link=None,
            advanced=None,
        ):
            if isinstance(options, type) and issubclass(options, Enum):
                options = [value.value for value in options]
            more = extra_dict, raw_link, advanced
            super().__init__(id, display_name, optional, tooltip, lazy, default, socketless, None, None, *more)
            self.options = options


class MultiType:
    Type = Any

    class Input(Input):
        io_type = "COMFY_MULTITYPED_V3"

        def __init__(
            self,
            id,
            types,
            display_name=None,
            optional=False,
            tooltip=None,
            lazy=None,
            extra_dict=None,
            raw_link=None,
            advanced=None,
        ):
            super().__init__(id, display_name, optional, tooltip, lazy, extra_dict, raw_link, advanced)
            self._io_types = types

        def get_io_type(self):
            return ",".join(dict.fromkeys(kind.io_type for kind in self._io_types))


class MatchType(Custom("COMFY_MATCHTYPE_V3")):
    class Template:
        def __init__(self, template_id, allowed_types=AnyType):
            self.template_id, self.allowed_types = template_id, allowed_types

    class Input(Input):
        def __init__(
            self,
            id,
            template,
            display_name=None,
            optional=False,
            tooltip=None,
            lazy=None,
            extra_dict=None,
            raw_link=None,
            advanced=None,
        ):
            super().__init__(id, display_name, optional, tooltip, lazy, extra_dict, raw_link, advanced)
            self.template = template

    class Output(Output):
        def __init__(self, template, id=None, display_name=None, tooltip=None, is_output_list=False):
            super().__init__(id, display_name, tooltip, is_output_list)
            self.template = template


class Autogrow(Custom("COMFY_AUTOGROW_V3")):
    class TemplateNames:
        def __init__(self, input, names, min=1):
            self.input, self.names, self.min = input, names, min

    class Input(Input):
        def __init__(self, id, template, display_name=None, optional=False, tooltip=None, lazy=None, extra_dict=None):
            super().__init__(id, display_name, optional, tooltip, lazy, extra_dict)
            self.template = template


class DynamicCombo(Custom("COMFY_DYNAMICCOMBO_V3")):
    class Option:
        def __init__(self, key, inputs):
            self.key, self.inputs = key, inputs

    class Input(Input):
        def __init__(self, id, options, display_name=None, optional=False, tooltip=None, lazy=None, extra_dict=None):
            super().__init__(id, display_name, optional, tooltip, lazy, extra_dict)
            self.options = options


@dataclass
class Schema:
    node_id: str
    display_name: str = None
    category: str = "sd"
    inputs: list = None
    outputs: list = None
    hidden: list = None
    description: str = ""
    search_aliases: list = None
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    is_dev_only: bool = False
    is_api_node: bool = False
    price_badge: Any = None
    not_idempotent: bool = False
    enable_expand: bool = False
    accept_all_inputs: bool = False
    essentials_category: str = None
    has_intermediate_output: bool = False

    def validate(self):
        inputs, outputs = [i.id for i in self.inputs or []], [o.id for o in self.outputs or []]
        twice = [name for name, count in Counter(inputs + outputs).items() if count > 1]
        if twice:
            raise ValueError(f"Ids must be unique between inputs and outputs, but {twice} are not.")

    def finalize(self):
        if self.is_output_node:
            self.hidden = [
                *(self.hidden or []),
                *(h for h in (Hidden.prompt, Hidden.extra_pnginfo) if h not in (self.hidden or [])),
            ]
        for number, output in enumerate(self.outputs or []):
            output.id = output.id or f"_{number}_{output.io_type}_"


class NodeOutput:
    def __init__(self, *args, ui=None, expand=None, block_execution=None):
        self.args, self.ui, self.expand, self.block_execution = args, ui, expand, block_execution

    @property
    def result(self):
        return self.args or None

    def __getitem__(self, index):
        return self.args[index]


class ComfyNode:
    SCHEMA = None
    hidden = None
    FUNCTION = "EXECUTE_NORMALIZED"

    @classmethod
    def define_schema(cls):
        raise NotImplementedError

    @classmethod
    def execute(cls, **kwargs):
        raise NotImplementedError

    @classmethod
    def GET_SCHEMA(cls):
        schema = cls.define_schema()
        schema.finalize()
        schema.validate()
        cls.SCHEMA = schema
        return schema

    @classmethod
    def EXECUTE_NORMALIZED(cls, *args, **kwargs):
        result = cls.execute(*args, **kwargs)
        if isinstance(result, ExecutionBlocker):
            return NodeOutput(block_execution=result.message)
        return result if isinstance(result, NodeOutput) else NodeOutput(*(result or ()))

    @classmethod
    def PREPARE_CLASS_CLONE(cls, v3_data):
        given = v3_data["hidden_inputs"] if v3_data else {}
        hidden = {hidden.name: given.get(hidden) for hidden in Hidden}
        return type(cls.__name__, (cls,), {"hidden": HiddenHolder(**hidden)})
