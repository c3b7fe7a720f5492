"""How ``--help`` looks: options in groups, two columns that fit into 80 characters, examples at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand

# every option by its parameter's name, or COMMAND.PARAMETER where it means something else there
GROUPS = {
    "Model": "task weights model cfg act neck_act acts swap scope to names imgsz layers width depth initialiser trust",
    "Data": "data fraction classes train_share split images image max_pixels form link strict fast only number batches epoch "
    "keep side",
    "Training": "recipe epochs batch mini_batch optimizer lr lr_grid lr_seeds schedule burn_in label_smoothing focal_gamma "
    "dropblock adversarial freeze ema eval_every seed set_ anneal distil resume dry_run sweep.seeds dropout",
    "Augmentation": "mosaic mixup cutmix jitter flip multi_scale close_mosaic partners resize",
    "Detection": "protocol conf iou nms max_det agnostic_nms rect tta backend vid_stride detect.classes predict.classes",
    "Comparison": "aa seeds until_decided max_seeds margin pairs cluster resolve allow_missing",
    "Planning": "plan spread image_error hours",
    "Export": "format opset elementary dynamic int8 cut",
    "Analysis": "points radius batch_norm span sigmas over values generations anchors.number anchors.seed loss.seed output.seed "
    "noise.seed",
    "Speed": "device devices engine engines half compile compile_ amp kernels memory cache workers rounds threads "
    "processor_time darknet bench eval.batch detect.batch predict.batch bench.batch noise.batch",
    "Jobs": "jobs job_set print_jobs",
    "Output": "output out name save save_json save_csv save_txt save_conf save_crop line_width show plots plot show_all "
    "info.layers force track as_json quiet help",
}
_GROUP = {name: group for group, names in GROUPS.items() for name in names.split()}


def group_of(command: str, parameter: str) -> str:
    """The group that a command's option stands in; KeyError for one that GROUPS does not know."""
    return _GROUP.get(f"{command}.{parameter}") or _GROUP[parameter]


def command(app: typer.Typer, name: str, *examples: str, hidden: bool = False) -> Callable[[Any], Any]:
    """The decorator that makes a function ``app``'s command, with examples at the end of its help."""
    return app.command(name, cls=Command, epilog="\n".join(examples), hidden=hidden)


class Command(TyperCommand):
    """A command whose help is in groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options group by group, then the examples."""
        kinds = get_type_hints(self.callback)
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Arguments", *GROUPS)}
        for parameter in self.get_params(ctx):
            argument = parameter.param_type_name == "argument"
            group = "Arguments" if argument else group_of(str(self.name), str(parameter.name))
            groups[group].append(_record(parameter, kinds.get(str(parameter.name), bool), argument))
        for name, rows in groups.items():
            if rows:
                with formatter.section(name):
                    formatter.write_dl(rows, col_max=28)

    def get_short_help_str(self, limit: int = 45) -> str:
        """The first sentence, which the list of commands wraps in place of cutting it off."""
        return super().get_short_help_str(limit=200)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples as they are: they are to be copied."""
        with formatter.section("Examples"):
            for line in (self.epilog or "").splitlines():
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def _record(parameter: Any, kind: Any, argument: bool) -> tuple[str, str]:
    """The two columns of a parameter: how it is written, and what it does with its default."""
    kinds = (kind, *get_args(kind))
    value = parameter.metavar or ("N" if int in kinds else "X" if float in kinds else "" if bool in kinds else "TEXT")
    if argument:
        return parameter.metavar or parameter.name.upper(), parameter.help.rstrip(".")
    written = " / ".join(
        ", ".join(sorted(names, key=lambda name: name.startswith("--")))
        for names in (parameter.opts, parameter.secondary_opts)
        if names
    )
    default = parameter.default
    if parameter.is_flag:
        default = f"--{parameter.opts[0].lstrip('-')}" if default else None
    note = " (required)" if parameter.required else f" [{default}]" if default not in (None, "", 0) else ""
    return f"{written} {value}".strip(), parameter.help.rstrip(".") + note
