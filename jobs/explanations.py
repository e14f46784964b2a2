"""What a failed check means for whoever uses the adapter, and what to do: by check id, in the order of a verdict."""

from __future__ import annotations

STATIC = {
    "files": (
        "there is no adapter here that can be loaded safely",
        "train again, or convert it where it was made",
    ),
    "header": (
        "the file was cut off, written in the wrong order or tampered with",
        "pull again; if it is the same on the host, train again",
    ),
    "tensors": (
        "the adapter is empty: loading it gives the untrained base",
        "sharded weights were not gathered before the save; train again",
    ),
    "dtypes": (
        "the numbers are stored in a form that PEFT does not save",
        "save it again in float32",
    ),
    "config": (
        "PEFT can't build this adapter from its configuration",
        "pull or train again",
    ),
    "alpha": (
        "every LoRA update is multiplied by zero: the adapter does nothing",
        "set lora_alpha above 0 and train again",
    ),
    "prefixes": (
        "the keys carry a wrapper's prefix, under which PEFT finds nothing",
        "unwrap the model before the save",
    ),
    "keys": (
        "the file holds tensors that PEFT has no place for",
        "save it again with PEFT's save_pretrained",
    ),
    "pairs": (
        "a lora_A without its lora_B (or of another rank) can't be applied",
        "train again; the save was partial",
    ),
    "modules": (
        "the adapter covers other layers than its configuration says; PEFT would be silent about it",
        "train again, and keep the configuration that belongs to the weights",
    ),
    "shapes": (
        "this adapter was not made for this base",
        "name the base it was trained on",
    ),
    "head": (
        "the classification head is missing or none of this task: loaded, it would be random or useless",
        "save it with modules_to_save",
    ),
    "classes": (
        "the head answers for another number of classes than the labels",
        "pull again, or train again",
    ),
    "finite": (
        "NaN or infinity in the weights: every answer is NaN",
        "lower the learning rate and train again",
    ),
    "lora_a": (
        "a lora_A is all zero, which no initialisation gives: the update is zero",
        "train again",
    ),
    "lora_b": (
        "a lora_B is all zero: this layer was never trained",
        "look whether LoRA gets gradients (enable_input_require_grads)",
    ),
    "shards": (
        "only one process's share of the rows was saved",
        "gather the parameters before the save",
    ),
    "copies": (
        "what one process or layer held was saved in place of what others held",
        "gather the parameters before the save; train again",
    ),
    "zero_tail": (
        "a part of the file was never written",
        "pull again; if it is the same on the host, its disk was full or died",
    ),
    "update_size": (
        "what the adapter adds to the weights is next to nothing, or would drown them",
        "look at the learning rate, lora_alpha and how the file was written; train again",
    ),
    "moved": (
        "these weights are what they were before the first step: they were not trained",
        "look whether they get gradients; train again",
    ),
    "saved": (
        "the file does not hold the weights that training held when it saved them",
        "pull again; if it is the same on the host, train again",
    ),
    "base": (
        "this is another base, or another revision, than the adapter was trained on",
        "name the right base with --base",
    ),
}

REPRODUCTION = {
    "loads": ("the adapter can't be loaded as it was saved", "train again"),
    "probes": ("there is nothing to compare with", "train again"),
    "tokenizer": ("texts would reach the model as other tokens than in training", "pull again"),
    "distance": (
        "training changed next to nothing: the adapter answers like the base without it",
        "look whether LoRA gets gradients, and at the learning rate; train again",
    ),
    "same_base": (
        "this is another base, or another revision, than the adapter was trained on",
        "name the right base",
    ),
    "portable": (
        "the adapter on disk is not the one that was trained",
        "pull again; if it stays, train again",
    ),
    "as_trained": (
        "the saved adapter answers differently from the model in training's memory",
        "train again",
    ),
    "argmax": ("texts get another class than they got in training", "pull again; if it stays, train again"),
    "adapter_matters": ("switching the adapter off changes nothing: it is empty", "train again"),
    "emptied_control": ("the comparison could not tell this adapter from an empty one", "train longer"),
    "head_control": ("the comparison could not tell this head from a random one", "train longer"),
    "batch_of_one": (
        "the same text gets another answer alone than in a batch: padding is wrong",
        "set the pad token",
    ),
    "merged": (
        "merged into its base the adapter answers otherwise: what is served merged is not what was trained",
        "do not merge it; train again without what PEFT can't merge",
    ),
    "degenerate": (
        "every text gets the same class: the adapter may not tell them apart",
        "look at its metrics on rows of every class",
    ),
    "validation": (
        "these are not the weights that training chose by their scores on validation",
        "train again",
    ),
    "degenerate_validation": (
        "nearly every row gets the same class, and they are not of one class",
        "look at the metrics by class; another learning rate, or more training",
    ),
}
