"""Frozen dataclasses for every setting, the schema that checks them, and what comes with the package."""

from yolomish.config.schema import check_fields, config_difference, from_dict, parse_size, save_yaml, to_dict
from yolomish.config.settings import (
    RESUMABLE,
    AugmentConfig,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
    check_model,
    check_train,
)
from yolomish.config.shipped import load_data_config, load_model_config, load_recipe, recipe_model, recipe_task, shipped
from yolomish.config.text import load_yaml, parse_json, parse_yaml

__all__ = [
    "RESUMABLE",
    "AugmentConfig",
    "DataConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "TrainConfig",
    "check_fields",
    "check_model",
    "check_train",
    "config_difference",
    "from_dict",
    "load_data_config",
    "load_model_config",
    "load_recipe",
    "load_yaml",
    "parse_json",
    "parse_size",
    "parse_yaml",
    "recipe_model",
    "recipe_task",
    "save_yaml",
    "shipped",
    "to_dict",
]
