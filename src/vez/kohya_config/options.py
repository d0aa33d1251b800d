"""kohya's options as data: what each does, what it is where a file does not say it, and which key of vez.toml says it.

Names and defaults are those of kohya-ss/sd-scripts at 48d368fa (add_*_arguments in library/train_util.py, setup_parser
in train_network.py, create_network in networks/lora.py), and of bmaltais/kohya_ss at 45088f04 for its JSON.

An option names the keys that may say it, the likeliest first. A key counts only where `vez.config` has it: where it
has none of them the option is listed as not carried over, and the day the key appears the option is carried.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel

from vez.config import Dataset, Project, Study, Variant
from vez.kohya_config.idle import IDLE, SECRET

Kind = Literal["whole", "number", "flag", "text"]
TABLES: Final[Mapping[str, type[BaseModel]]] = {
    "project": Project,
    "dataset": Dataset,
    "study": Study,
    "variant": Variant,
}


_BEGIN: Final = "<!-- the table: vez.kohya_config.options.on_page -->"
_END: Final = "<!-- end of the table -->"


@dataclass(frozen=True)
class Option:
    """One option of kohya's."""

    name: str
    """As in --config_file; network_args and optimizer_args as ``network_args.conv_dim``."""
    does: str
    """What it does there: for the list of what was not carried over."""
    keys: tuple[str, ...] = ()
    """Which keys may say it: ``variant.rank``."""
    kind: Kind = "text"
    default: Any = None
    """What kohya takes where nothing is said; None: the option is off."""
    same: tuple[Any, ...] = ()
    """Values at which vez does the same without a key."""
    values: Mapping[str, Any] | None = None
    """kohya's value in small letters → vez's, where they are spelled differently."""
    note: str = ""
    """How vez differs."""
    idle: bool = False
    """It changes nothing that is learned, or vez sees to it by itself."""
    secret: bool = False
    """Its value is never shown."""


def key_of(option: Option, models: Mapping[str, type[BaseModel]] = TABLES) -> str | None:
    """The first of its keys that vez.toml has; None: it has none."""
    for key in option.keys:
        table, _, name = key.partition(".")
        if name in models[table].model_fields:
            return key
    return None


def on_page(text: str) -> str:
    """docs/coming-from-kohya.md with its table written anew, between two comments; the docs' test holds it."""
    before, mark, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    lines = [
        f"| `{name}` | {f'`{default}`' if default else ''} | {f'`{key}`' if key else '—'} | {note} |"
        for name, key, default, note in rows()
        if name not in IDLE
        if name not in SECRET
    ]
    head = "| kohya | where it says nothing | vez.toml | to know |\n|---|---|---|---|\n"
    return f"{before}{mark}\n{head}{chr(10).join(lines)}\n{end}{after}"


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Every option: its name, vez's key or "", kohya's default as text, and what is to know about it."""
    for option in OPTIONS:
        said = [option.does] if option.idle or not key_of(option) else []
        default = "" if option.default is None else str(option.default)
        note = "; ".join([*said, *filter(None, [option.note])])
        yield option.name, key_of(option) or "", default, note.replace("|", "\\|")


_BASE: Final = (
    Option(
        "pretrained_model_name_or_path",
        "the base",
        ("project.base",),
        note="a hub id, a folder or a file on this machine",
    ),
    Option("vae", "takes the VAE from another file", ("project.vae",)),
    Option("v2", "the base is SD 2.x; vez sees that in the weights", idle=True),
    Option(
        "v_parameterization",
        "the base predicts v",
        ("project.prediction",),
        "flag",
        False,
        values={"true": "v"},
        note="where it is not said, the base's own settings say it",
    ),
    Option("sdxl", "the base is SDXL; vez sees that in the weights", idle=True),
    Option(
        "clip_skip",
        "takes an earlier layer of the text encoder",
        ("project.clip_skip",),
        "whole",
        same=(1,),
        note="1 is the last layer",
    ),
    Option(
        "max_token_length",
        "reads captions of more than 75 tokens, in parts of 75",
        ("project.tokens",),
        "whole",
        same=(75,),
        note="without it kohya too cuts a caption after 75 tokens; vez lint names the captions that are cut",
    ),
    Option("tokenizer_cache_dir", "where the tokenizer lies", idle=True),
    Option("no_half_vae", "keeps the VAE in fp32 so that SDXL's gives no black pictures; vez's VAE is fp32", idle=True),
)

_NETWORK: Final = (
    Option("network_module", "which kind of network is trained", ("variant.network",), same=("networks.lora",)),
    Option("network_dim", "the rank", ("variant.rank",), "whole", 4),
    Option(
        "network_alpha",
        "the scale of the LoRA is alpha/rank",
        ("variant.alpha",),
        "number",
        1.0,
        note="vez takes the rank where nothing is said: a scale of 1, as in LoRAs whose alpha equals their dim",
    ),
    Option("network_dropout", "leaves out neurons at random", ("variant.dropout", "variant.network_dropout"), "number",
           same=(0.0,)),
    Option("network_train_unet_only", "leaves the text encoder alone", ("variant.lr_text",), "flag", False,
           note="lr_text = 0"),
    Option("network_train_text_encoder_only", "leaves the U-Net alone", ("variant.lr_unet",), "flag", False,
           note="lr_unet = 0"),
    Option("network_weights", "goes on from a LoRA's weights", ("variant.start", "variant.init_from")),
    Option("dim_from_weights", "takes the rank from network_weights", kind="flag", default=False),
    Option("base_weights", "merges LoRAs into the base before it starts; vez convert can do it once and for all"),
    Option("base_weights_multiplier", "how strongly base_weights are merged"),
    Option("scale_weight_norms", "shrinks a module whose norm grows beyond this",
           ("variant.scale_weight_norms",), "number", same=(0.0,)),
    Option("network_args.conv_dim", "also adapts the 3×3 convolutions (LoCon), at this rank",
           ("variant.conv_rank",), "whole",
           note="the ResNets' 1×1 convolutions and time projections get the rank; of 0 they alone: resnets = true"),
    Option("network_args.conv_alpha", "alpha of the 3×3 convolutions", ("variant.conv_alpha",), "number",
           note="kohya takes 1 where nothing is said"),
    Option("network_args.rank_dropout", "leaves out ranks at random", ("variant.rank_dropout",), "number",
           same=(0.0,)),
    Option("network_args.module_dropout", "leaves out modules at random", ("variant.module_dropout",), "number",
           same=(0.0,)),
    Option("network_args.loraplus_lr_ratio", "LoRA+: the up matrices learn this many times as fast",
           ("variant.lora_plus",), "number"),
    Option("network_args.loraplus_unet_lr_ratio", "LoRA+ for the U-Net alone", ("variant.loraplus_unet",), "number"),
    Option("network_args.loraplus_text_encoder_lr_ratio", "LoRA+ for the text encoder alone",
           ("variant.loraplus_text",), "number"),
    Option("network_args.block_dims", "a rank for each of the 25 blocks, by number",
           ("variant.blocks",)),
    Option("network_args.block_alphas", "an alpha for each of the 25 blocks, by number",
           ("variant.blocks",)),
    Option("network_args.conv_block_dims", "a rank of the convolutions for each block, by number",
           ("variant.blocks",)),
    Option("network_args.conv_block_alphas", "an alpha of the convolutions for each block, by number",
           ("variant.blocks",)),
    Option("network_args.down_lr_weight", "a multiple of the learning rate for each block on the way down",
           ("variant.blocks",)),
    Option("network_args.mid_lr_weight", "a multiple of the learning rate for the middle block",
           ("variant.blocks",)),
    Option("network_args.up_lr_weight", "a multiple of the learning rate for each block on the way up",
           ("variant.blocks",)),
    Option("network_args.block_lr_zero_threshold", "below it a block is not trained",
           ("variant.blocks",), "number"),
    Option("network_args.algo", "which of LyCORIS's kinds is trained"),
    Option("network_args.preset", "which modules LyCORIS adapts"),
)  # fmt: skip

_OPTIMIZER: Final = (
    Option("learning_rate", "the learning rate where unet_lr or text_encoder_lr says none",
           ("variant.lr_unet", "variant.learning_rate"), "number", 2e-6,
           note="vez's own are 1e-4 and 5e-5; kohya's default learns next to nothing"),
    Option("unet_lr", "the learning rate of the U-Net's LoRA", ("variant.lr_unet",), "number"),
    Option("text_encoder_lr", "the learning rate of the text encoder's LoRA", ("variant.lr_text",), "number",
           note="a list has one for each text encoder; the second is lr_text2"),
    Option("optimizer_type", "the optimizer", ("variant.optimizer",), default="AdamW", same=("AdamW",),
           values={"adamw8bit": "adamw8bit", "prodigy": "prodigy", "adamwschedulefree": "schedulefree",
                   "lion": "lion_pytorch.Lion", "lion8bit": "bitsandbytes.optim.Lion8bit",
                   "pagedlion8bit": "bitsandbytes.optim.PagedLion8bit",
                   "pagedadamw": "bitsandbytes.optim.PagedAdamW",
                   "pagedadamw8bit": "bitsandbytes.optim.PagedAdamW8bit",
                   "pagedadamw32bit": "bitsandbytes.optim.PagedAdamW32bit"},
           note="adamw, adamw8bit, prodigy, schedulefree, or a class by its dotted name"),
    Option("use_8bit_adam", "an old way to say optimizer_type = AdamW8bit", ("variant.optimizer",), "flag", False),
    Option("use_lion_optimizer", "an old way to say optimizer_type = Lion", ("variant.optimizer",), "flag", False),
    Option("optimizer_args.weight_decay", "the decoupled weight decay", ("variant.weight_decay",), "number"),
    Option("lr_scheduler", "what the learning rates do", ("variant.schedule",), default="constant",
           values={"constant_with_warmup": "constant"},
           note="constant_with_warmup is constant with a warmup"),
    Option("lr_scheduler_type", "a scheduler of another package, by its class"),
    Option("lr_scheduler_args", "arguments of lr_scheduler_type"),
    Option("lr_scheduler_num_cycles", "how often the cosine starts again", ("variant.cycles",), "whole", same=(1,)),
    Option("lr_scheduler_power", "the power of the polynomial", ("variant.power",), "number", same=(1.0,)),
    Option("lr_scheduler_timescale", "how fast inverse_sqrt falls"),
    Option("lr_scheduler_min_lr_ratio", "the share of the learning rate that stays at the end", kind="number"),
    Option("lr_warmup_steps", "steps over which the learning rates rise", ("variant.warmup",), "number", 0,
           note="less than 1 is a share of the steps; the GUI's lr_warmup is percent of them"),
    Option("lr_decay_steps", "steps at the end over which the learning rates fall", kind="number", same=(0,)),
    Option("max_grad_norm", "the largest norm of the gradient", ("variant.clip_grad",), "number", 1.0),
    Option("fused_backward_pass", "saves memory in full fine-tuning", idle=True),
)  # fmt: skip

_LENGTH: Final = (
    Option("train_batch_size", "pictures at a time", ("variant.batch",), "whole", 1),
    Option("gradient_accumulation_steps", "batches that make one step", ("variant.accumulate",), "whole", 1),
    Option("max_train_steps", "steps", ("study.steps",), "whole", 1600),
    Option("max_train_epochs", "epochs; goes before max_train_steps", ("study.images_seen",), "whole",
           note="images_seen = pictures × repeats × epochs"),
    Option("seed", "the seed", ("study.seeds",), "whole", note="without it kohya draws one; vez takes 0"),
    Option("mixed_precision", "what U-Net and text encoder compute in", ("study.precision",), default="no",
           values={"no": "fp32", "float": "fp32"}),
    Option("full_fp16", "trains the LoRA itself in fp16; in vez it is fp32 always, so that no update is rounded away",
           kind="flag", default=False),
    Option("full_bf16", "trains the LoRA itself in bf16; in vez it is fp32 always, so that no update is rounded away",
           kind="flag", default=False),
    Option("fp8_base", "keeps the base in 8 bits; vez rounds it to int8 with a scale for each output, not to fp8",
           ("study.quantize",), "flag", False, values={"true": "int8", "false": "none"}),
    Option("fp8_base_unet", "keeps the U-Net in 8 bits", kind="flag", default=False),
    Option("gradient_checkpointing", "computes activations twice to save memory; the result is the same",
           ("study.checkpointing",), "flag", False, values={"true": "whole", "false": "none"}),
    Option("torch_compile", "compiles the U-Net; faster, the same result up to rounding",
           ("study.compile",), "flag", False),
    Option("initial_epoch", "begins to count at this epoch", kind="whole"),
    Option("initial_step", "begins to count at this step", kind="whole"),
    Option("skip_until_initial_step", "passes over the data of the steps before", kind="flag", default=False),
    Option("resume", "goes on from a saved state; vez goes on by itself where a run was cut", idle=True),
)  # fmt: skip

_LOSS: Final = (
    Option("min_snr_gamma", "Min-SNR: weighs the easy timesteps less", ("variant.min_snr",), "number", same=(0.0,)),
    Option("debiased_estimation_loss", "weighs timesteps by 1/√SNR",
           ("variant.debiased", "variant.debiased_estimation"), "flag", False),
    Option("v_pred_like_loss", "adds the loss weighed as for v-prediction", kind="number", same=(0.0,)),
    Option("scale_v_pred_loss_like_noise_pred", "weighs the loss of v-prediction as for noise", kind="flag",
           default=False),
    Option("noise_offset", "shifts the noise of a whole channel, for darker darks and lighter lights",
           ("variant.noise_offset",), "number", same=(0.0,)),
    Option("noise_offset_random_strength", "draws the strength of noise_offset", kind="flag", default=False,
           keys=("variant.noise_offset_random",)),
    Option("adaptive_noise_scale", "makes noise_offset depend on the picture", kind="number", same=(0.0,),
           keys=("variant.adaptive_noise_scale",)),
    Option("multires_noise_iterations", "adds noise of coarser grids",
           ("variant.multires_noise", "variant.multires_iterations", "variant.multires_noise_iterations"), "whole",
           same=(0,)),
    Option("multires_noise_discount", "how much less each coarser grid counts",
           ("variant.multires_discount", "variant.multires_noise_discount"), "number", same=(0.3,)),
    Option("ip_noise_gamma", "input perturbation: noise on what the U-Net sees, not on what it is to say",
           ("variant.input_perturbation", "variant.ip_noise"), "number", same=(0.0,)),
    Option("ip_noise_gamma_random_strength", "draws the strength of ip_noise_gamma", kind="flag", default=False,
           keys=("variant.input_perturbation_random",)),
    Option("zero_terminal_snr", "the last timestep is pure noise",
           ("variant.zero_terminal_snr", "project.zero_terminal_snr", "study.zero_terminal_snr"), "flag", False),
    Option("min_timestep", "trains no timestep below this", ("variant.min_timestep",), "whole", same=(0,)),
    Option("max_timestep", "trains no timestep from this on", ("variant.max_timestep",), "whole", same=(1000,)),
    Option("loss_type", "the loss", ("variant.loss",), default="l2", same=("l2",)),
    Option("huber_schedule", "how huber_c depends on the timestep", ("variant.huber_schedule",), same=("snr",)),
    Option("huber_c", "where the Huber loss goes over from square to line", ("variant.huber_c",), "number",
           same=(0.1,)),
    Option("huber_scale", "the scale of the Huber loss", ("variant.huber_scale",), "number", same=(1.0,)),
    Option("masked_loss", "counts the loss where a mask is", ("variant.masked_loss", "variant.masked"), "flag", False),
    Option("prior_loss_weight", "how much class pictures count",
           ("variant.prior_weight", "variant.prior_loss_weight", "study.prior_weight"), "number", same=(1.0,)),
)  # fmt: skip

_DATA: Final = (
    Option("train_data_dir", "the pictures, in folders <N>_<words>", ("dataset.images",),
           note="copied into the project, N becomes repeats and the words become captions where there are none"),
    Option("reg_data_dir", "class pictures beside the concept's", ("dataset.role",),
           note='a dataset of its own with role = "class"'),
    Option("dataset_config", "another file, which says the pictures", ("dataset.images",)),
    Option("resolution", "the side of the pictures", ("dataset.resolution",),
           note="of width and height that differ vez takes the square root of the area, with buckets"),
    Option("enable_bucket", "keeps the pictures' shapes, in buckets", ("dataset.buckets",), "flag", False,
           values={"true": "kohya", "false": "square"}),
    Option("min_bucket_reso", "the shortest side of a bucket", kind="whole", same=(256,)),
    Option("max_bucket_reso", "the longest side of a bucket", kind="whole", same=(1024,)),
    Option("bucket_reso_steps", "the step of the buckets' sides", kind="whole", same=(64,)),
    Option("bucket_no_upscale", "enlarges no picture; vez check names the pictures that would be", kind="flag",
           default=False, keys=("dataset.no_upscale",)),
    Option("caption_extension", "what the names of captions end in", ("dataset.captions",), default=".caption",
           note="read once, when the pictures are copied; vez's captions are .txt"),
    Option("caption_prefix", "stands before every caption; taken into the captions", idle=True),
    Option("caption_suffix", "stands after every caption; taken into the captions", idle=True),
    Option("caption_dropout_rate", "trains without the caption at times", ("variant.caption_dropout",), "number", 0.0),
    Option("caption_dropout_every_n_epochs", "trains whole epochs without captions",
           ("variant.caption_dropout_every",), "whole", 0,
           note="counted in passes over the dataset; carried where an epoch shows each picture once"),
    Option("caption_tag_dropout_rate", "leaves out single tags",
           ("variant.tag_dropout", "variant.caption_tag_dropout"), "number", 0.0),
    Option("shuffle_caption", "shuffles the tags of a caption",
           ("variant.shuffle", "variant.caption_shuffle", "variant.shuffle_caption"), "flag", False),
    Option("keep_tokens", "tags at the front that stay there",
           ("variant.keep_tokens", "variant.keep_tags", "variant.keep"), "whole", 0),
    Option("keep_tokens_separator", "what stands behind the tags that stay",
           ("variant.keep_tokens_separator",)),
    Option("secondary_separator", "what joins tags that stay together", ("variant.secondary_separator",)),
    Option("caption_separator", "what stands between tags", ("variant.caption_separator",), same=(",",)),
    Option("enable_wildcard", "draws one of several captions, and one of {a|b}",
           ("variant.wildcards", "variant.caption_wildcards"), "flag", False),
    Option("weighted_captions", "reads (word:1.3) as a weight", kind="flag", default=False),
    Option("token_warmup_min", "begins with this many tags", kind="whole", same=(1,)),
    Option("token_warmup_step", "steps until all tags are there", kind="number", same=(0,)),
    Option("flip_aug", "mirrors pictures at random", ("variant.flip", "dataset.flip"), "flag", False),
    Option("color_aug", "changes the colours at random", kind="flag", default=False),
    Option("random_crop", "cuts a picture at another place each time",
           ("dataset.random_crops",), "flag", False,
           note="4: each sample draws one of so many frozen places"),
    Option("face_crop_aug_range", "cuts around the face at random; see [dataset] faces for a fixed cut"),
    Option("alpha_mask", "transparent parts do not count in the loss", ("dataset.masks",), "flag", False,
           values={"true": "alpha"}),
    Option("conditioning_data_dir", "the folder of masks"),
    Option("validation_split", "keeps a share of the pictures for a validation loss", ("dataset.held_out",), "number",
           0.0, note="vez keeps a number of pictures, and all copies of one on the same side"),
    Option("validation_seed", "which pictures are kept; vez splits by the pictures themselves", idle=True),
    Option("max_validation_steps", "how many of them are looked at; vez looks at all", idle=True),
    Option("resize_interpolation", "how pictures are made smaller", same=("area",), kind="text"),
    Option("dataset_class", "a dataset of somebody's own, as a class"),
    Option("in_json", "captions in one JSON file, for fine-tuning"),
    Option("dataset_repeats", "how often in_json's pictures are shown", kind="whole", same=(1,)),
    Option("custom_attributes", "words for a dataset of one's own"),
    Option("debug_dataset", "shows the pictures and stops", idle=True),
)  # fmt: skip

_OUT: Final = (
    Option("output_name", "the name of the file", ("study.variant",), note="the variant's name"),
    Option("output_dir", "where the file goes; vez puts it under the project", idle=True),
    Option("save_precision", "what the file holds the weights as; kohya: fp32 where nothing is said",
           ("study.save_dtype", "study.save_precision", "variant.save_dtype"), same=("fp16",),
           note="vez writes fp16 where nothing is said"),
    Option("save_every_n_steps", "saves every so many steps", ("study.save_every",), "whole", same=(0,)),
    Option("save_every_n_epochs", "saves every so many epochs", ("study.save_every",), "whole", same=(0,),
           note="vez counts steps"),
    Option("save_n_epoch_ratio", "saves at least so often", kind="whole"),
    Option("save_last_n_epochs", "keeps the last so many files", ("study.keep",), "whole", same=(0,)),
    Option("save_last_n_steps", "keeps the files of the last so many steps", kind="whole", same=(0,)),
    Option("save_last_n_epochs_state", "keeps the last so many states", idle=True),
    Option("save_last_n_steps_state", "keeps the states of the last so many steps", idle=True),
    Option("save_state", "saves what a cut run goes on from; vez does always", idle=True),
    Option("save_state_on_train_end", "saves the state at the end", idle=True),
    Option("save_model_as", "the kind of file; vez writes .safetensors only, never a pickle", same=("safetensors",)),
    Option("no_metadata", "writes no metadata; vez convert can strip them", kind="flag", default=False),
    Option("training_comment", "a comment in the file"),
    Option("validate_every_n_steps", "a validation loss every so many steps", ("study.validate_every",), "whole",
           same=(0,)),
    Option("validate_every_n_epochs", "a validation loss every so many epochs", ("study.validate_every",), "whole",
           same=(0,), note="vez counts steps"),
    Option("sample_every_n_steps", "draws pictures every so many steps",
           ("study.sample_every", "study.preview_every"), "whole", same=(0,),
           note="before the first step and after the last too"),
    Option("sample_every_n_epochs", "draws pictures every so many epochs",
           ("study.sample_every", "study.preview_every"), "whole", same=(0,), note="vez counts steps"),
    Option("log_with", "tells its numbers to TensorBoard or W&B too", ("study.log",),
           values={"tensorboard": ["tensorboard"], "wandb": ["wandb"], "all": ["tensorboard", "wandb"]}),
    Option("sample_at_first", "draws pictures before it starts; with sample_every vez always does", idle=True),
    Option("sample_prompts", "the prompts that are drawn; vez draws its own suite, with and without the trigger "
           "word, and what [[study.NAME.prompts]] adds"),
    Option("sample_sampler", "the sampler of these pictures; vez's is in [study.NAME.sampling]", idle=True),
)  # fmt: skip

OPTIONS: Final[tuple[Option, ...]] = (
    *_BASE,
    *_NETWORK,
    *_OPTIMIZER,
    *_LENGTH,
    *_LOSS,
    *_DATA,
    *_OUT,
    *(Option(name, does, idle=True) for name, does in IDLE.items()),
    *(Option(name, does, idle=True, secret=True) for name, does in SECRET.items()),
)
BY_NAME: Final[Mapping[str, Option]] = {option.name: option for option in OPTIONS}
