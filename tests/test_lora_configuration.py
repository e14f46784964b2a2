"""What a configuration is read to mean, against the model that PEFT itself makes of it."""

from __future__ import annotations

import json
import re
import warnings
from functools import partial
from typing import Any

import torch
from hypothesis import Phase, given, reject, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer

from jobs import lora_configuration


class Group(torch.nn.Module):
    """Modules by their names."""

    def __init__(self, **modules: torch.nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


def make_base() -> torch.nn.Module:
    """Modules of Llama's names: eleven layers, so that one index is the end of another, with experts in each."""
    linear, several = partial(torch.nn.Linear, 2, 2, device="meta"), torch.nn.ModuleList

    def layer() -> torch.nn.Module:
        attention = Group(q_proj=linear(), k_proj=linear(), v_proj=linear())
        experts = several([Group(up_proj=linear()), Group(up_proj=linear())])
        return Group(self_attn=attention, mlp=Group(up_proj=linear(), experts=experts))

    body = Group(layers=several([layer() for _ in range(11)]), norm=torch.nn.LayerNorm(2))
    return Group(model=body, lm_head=linear())


LAYERS = [name for name, module in make_base().named_modules() if isinstance(module, torch.nn.Linear)]

layers = st.sampled_from(LAYERS)
endings = st.builds(lambda name, dots: ".".join(name.split(".")[-dots:]), layers, st.integers(1, 6))
numbers = st.integers(0, 12)
projections = st.sampled_from(["q_proj", "(k|v)_proj", "up_proj", r"\w+_proj", "proj"])
patterns = (
    st.builds(lambda ending: rf".*{re.escape(ending)}", endings)
    | st.builds(lambda number, last: rf".*\.layers\.{number}\.\w+\.{last}", numbers, projections)
    | st.builds(lambda last: rf"^model(?=\.).*(self_attn|mlp)\.({last})$", projections)
)
keys = endings | patterns | st.builds(lambda name: f"^{name}$", layers) | projections
wholes = endings | st.builds(lambda number: rf"layers\.{number}", numbers) | st.sampled_from(["norm", "self_attn"])


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """What LoraConfig takes: lists with layers, or a pattern, and ranks, scalings and exceptions to either."""
    chosen: dict[str, Any] = {"target_modules": draw(st.lists(endings, min_size=1, max_size=30) | patterns)}
    if isinstance(chosen["target_modules"], list) and draw(st.booleans()):
        chosen["layers_to_transform"] = draw(numbers | st.lists(numbers, max_size=4))
        chosen["layers_pattern"] = draw(st.sampled_from([None, "layers", ["h", "layers"], r"model\.layers", "mlp"]))
    others = {
        "exclude_modules": st.lists(endings, min_size=1, max_size=2) | patterns,
        "modules_to_save": st.lists(wholes, min_size=1, max_size=2),
        "rank_pattern": st.dictionaries(keys, st.integers(1, 9), max_size=4),
        "alpha_pattern": st.dictionaries(keys, st.integers(1, 99) | st.floats(0.5, 4), max_size=4),
        "use_rslora": st.booleans(),
    }
    return chosen | draw(
        st.fixed_dictionaries({"r": st.integers(1, 9), "lora_alpha": st.integers(1, 64)}, optional=others)
    )


# Shrinking would take minutes.
@settings(max_examples=80, deadline=None, phases=[Phase.generate])
@given(configurations())
def test_modules_ranks_and_scalings_are_those_of_a_model_of_peft(chosen: dict[str, Any]) -> None:
    config = LoraConfig(**chosen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # patterns that match nothing
        try:
            model = get_peft_model(make_base(), config)
        except TypeError:
            reject()  # what is to be saved whole has LoRA already, by PEFT's own rule
        except ValueError as error:
            assert "not found in the base" in str(error) or "o modules were targeted" in str(error)
            made = {}
        else:
            made = {
                name: (module.r["default"], module.scaling["default"])
                for name, module in model.base_model.model.named_modules()
                if isinstance(module, LoraLayer)
            }
    written = json.loads(json.dumps(config.to_dict(), default=list))  # PEFT makes long lists of names shorter
    ours = lora_configuration.parse(written)
    assert made == {name: (ours.rank_of(name), ours.scaling_of(name)) for name in LAYERS if ours.targets(name)}
