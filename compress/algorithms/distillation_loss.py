"""What a student learns from its teacher: logits, hidden states, attention maps, labels, and its own mistakes.

Logits: Hinton et al., 2015, arXiv 1503.02531. Hidden states by learned projections and attention maps, blocks matched
at the same relative depth: Jiao et al. (TinyBERT), EMNLP findings 2020, arXiv 1909.10351; maps by their divergence, as
in Wang et al. (MiniLM), NeurIPS 2020, arXiv 2002.10957. Its own mistakes: Agarwal et al., "On-Policy Distillation of
Language Models" (GKD), ICLR 2024, arXiv 2306.13649: the student writes on, and learns the reverse divergence there.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.nn import functional as F

from compress.algorithms.options import DistillationConfig
from compress.algorithms.training import divergence
from compress.model.architectures import blocks_path
from compress.model.structure import sublayers
from compress.model.walk import Batch, empty_cache, row_weights, run

IGNORED = -100  # the label of a token that has none


class DistillationLoss:
    """The loss of a student at a step.

    Parameters
    ----------
    student
        The student.
    teacher
        The teacher.
    config
        What counts in the loss.
    seed
        Of the projections, and of what the student writes itself.

    Attributes
    ----------
    parameters
        The projections of hidden states, by name, which are trained with the student.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, config: DistillationConfig, seed: int):
        self.student, self.teacher, self.config, self.seed = student, teacher, config, seed
        self.blocks = _matched_blocks(student, teacher) if config.hidden else []
        self.maps = _matched_maps(student, teacher) if config.attention else []
        self.kept: dict[int, tuple[Batch, Tensor, Tensor]] = {}  # by the id of a batch, which is held so that it lasts
        self.parameters: dict[str, nn.Parameter] = {}
        ours, theirs = student.config.hidden_size, teacher.config.hidden_size
        if ours != theirs:
            generator = torch.Generator().manual_seed(seed)
            for our, _ in self.blocks:
                start = torch.randn(ours, theirs, generator=generator) / ours**0.5
                self.parameters[f"projection.{our}"] = nn.Parameter(start.to(student.device, student.dtype))

    def loss(self, batch: Batch, number: int) -> Tensor:
        """Of a batch at step `number`: the mean over its samples."""
        share, temperature = self.config.on_policy, self.config.temperature
        if int((number + 1) * share) > int(number * share):
            return self._of_own_text(batch, number)
        logits, states, maps = _watched(self.student, batch, *(_side(p, 0) for p in (self.blocks, self.maps)))
        weights = row_weights(self.student, logits, batch)
        if self.config.top_k:
            target, chosen = self._top(batch)
            each = divergence(target, bins(logits, chosen, temperature), weights, temperature)
        else:
            with torch.no_grad():
                sides = (_side(p, 1) for p in (self.blocks, self.maps))
                target, their_states, their_maps = _watched(self.teacher, batch, *sides)
            each = divergence(target, logits, weights, temperature)
            for our, their in self.blocks:
                right = their_states[their].float()
                found = hidden_distance(self._projected(our, states[our]).float(), right, batch)
                each = each + self.config.hidden / len(self.blocks) * found
            for our, their in self.maps:
                found = map_divergence(maps[our].float(), their_maps[their].float(), batch)
                each = each + self.config.attention / len(self.maps) * found
        if self.config.labels:
            each = each + self.config.labels * labelled(logits, batch, self.student.can_generate())
        return each.mean()

    def _projected(self, path: str, states: Tensor) -> Tensor:
        name = f"projection.{path}"
        return states @ self.parameters[name] if name in self.parameters else states

    def _top(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The teacher's logits in the bins that are kept, and the classes of these (`bins`)."""
        if id(batch) not in self.kept:
            with torch.no_grad():
                target = run(self.teacher, batch).float()
            chosen = target.topk(min(self.config.top_k, target.shape[-1]), -1).indices
            self.kept[id(batch)] = batch, bins(target, chosen, self.config.temperature), chosen.int()
        _, target, chosen = self.kept[id(batch)]
        return target, chosen.long()

    def _of_own_text(self, batch: Batch, number: int) -> Tensor:
        """KL(student | teacher) on what the student writes behind the prompts; what it writes depends on the step."""
        draw = (self.seed * 1_000_003 + number) * 1009 + PartialState().process_index
        text, prompt = written(self.student, batch, torch.Generator(self.student.device).manual_seed(draw))
        with torch.no_grad():
            target = run(self.teacher, text).float()
        logits = run(self.student, text).float()
        weights = torch.zeros_like(logits[..., 0])
        weights[:, prompt - 1 : -1] = text["attention_mask"][:, prompt:]  # a row says what the next token is
        return divergence(logits, target, weights, self.config.temperature).mean()


def bins(logits: Tensor, chosen: Tensor, temperature: float) -> Tensor:
    """Logits of some classes, and of all others as one.

    Parameters
    ----------
    logits
        (..., classes).
    chosen
        (..., k): the classes.
    temperature
        Gamma.

    Returns
    -------
    Tensor
        (..., k + 1): softmax(bins / temperature) has the mass that the others have together; without others (..., k).
    """
    found = logits.gather(-1, chosen)
    if chosen.shape[-1] == logits.shape[-1]:
        return found
    others = (logits / temperature).scatter(-1, chosen, -torch.inf)
    return torch.cat([found, temperature * others.logsumexp(-1, keepdim=True)], -1)


def hidden_distance(ours: Tensor, theirs: Tensor, batch: Batch) -> Tensor:
    """Squared difference of hidden states relative to the square of the teacher's.

    Parameters
    ----------
    ours
        (batch, tokens, width).
    theirs
        (batch, tokens, width).
    batch
        What the model sees.

    Returns
    -------
    Tensor
        (batch,).
    """
    real = batch["attention_mask"][..., None]
    return ((ours - theirs) * real).square().sum((1, 2)) / (theirs * real).square().sum((1, 2))


def map_divergence(ours: Tensor, theirs: Tensor, batch: Batch) -> Tensor:
    """KL(theirs | ours) of attention maps.

    Parameters
    ----------
    ours
        (batch, heads, tokens, tokens).
    theirs
        As ours; where the numbers of heads differ, the mean maps are compared.
    batch
        What the model sees.

    Returns
    -------
    Tensor
        (batch,): mean over heads and real tokens.
    """
    if ours.shape[1] != theirs.shape[1]:
        ours, theirs = ours.mean(1, keepdim=True), theirs.mean(1, keepdim=True)
    each = (torch.xlogy(theirs, theirs) - theirs * ours.clamp_min(1e-12).log()).sum(-1).mean(1)  # (batch, tokens)
    real = batch["attention_mask"]
    return (each * real).sum(1) / real.sum(1)


def labelled(logits: Tensor, batch: Batch, text: bool) -> Tensor:
    """Cross entropy of the labels, or squared error where there is one class.

    Parameters
    ----------
    logits
        (batch, rows, classes).
    batch
        Perhaps with "labels".
    text
        Whether labels are next tokens, which are the tokens themselves where none are given.

    Returns
    -------
    Tensor
        (batch,): the mean over labelled rows.
    """
    if text:
        labels = batch.get("labels", batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED))
        logits, labels = logits[:, :-1], labels[:, 1:]
    else:
        labels = batch["labels"].reshape(len(logits), -1)
    if logits.shape[-1] == 1:
        return (logits[..., 0] - labels).square().mean(1)
    each = F.cross_entropy(logits.transpose(1, 2), labels.long(), ignore_index=IGNORED, reduction="none")
    return each.sum(1) / (labels != IGNORED).sum(1).clamp_min(1)


@torch.no_grad()
def written(model: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Batch, int]:
    """What a model writes behind the beginning of each sequence, sampled.

    Parameters
    ----------
    model
        A decoder.
    batch
        The sequences.
    generator
        Draws the tokens.

    Returns
    -------
    tuple
        A batch as long as the given one, in which a sequence ends behind its first token that ends a text; and the
        number of tokens of all beginnings: half the shortest sequence.
    """
    prompt = max(1, int(batch["attention_mask"].sum(1).min()) // 2)
    length = max(batch["input_ids"].shape[1], prompt + 1)
    last = model.generation_config.eos_token_id
    ends = torch.tensor([last] if isinstance(last, int) else last or [], device=generator.device)
    ids = batch["input_ids"][:, :prompt]
    mask, fed, cache = torch.ones_like(ids), ids, empty_cache(model)
    while ids.shape[1] < length:
        output = model(input_ids=fed, attention_mask=mask, **cache, use_cache=True)
        fed = torch.multinomial(output.logits[:, -1].float().softmax(-1), 1, generator=generator)
        ended = (mask[:, -1:] == 0) | (ids.shape[1] > prompt) & torch.isin(ids[:, -1:], ends)
        ids, mask = torch.cat([ids, fed], 1), torch.cat([mask, (~ended).to(mask)], 1)
    return {"input_ids": ids, "attention_mask": mask}, prompt


@contextmanager
def showing_maps(*models: nn.Module) -> Iterator[None]:
    """While the context is open the models compute attention in the way that has its maps at hand.

    Parameters
    ----------
    models
        Which are changed until then.

    Yields
    ------
    None
    """
    before = [model.config._attn_implementation for model in models]
    try:
        for model in models:
            model.set_attn_implementation("eager")
        yield
    finally:
        for model, way in zip(models, before):
            model.set_attn_implementation(way)


def _matched_blocks(student: nn.Module, teacher: nn.Module) -> list[tuple[str, str]]:
    """Every block of the student and the teacher's at whose end the same share of all blocks is done, by path."""
    places = _places(student, teacher)
    return [(f"{blocks_path(student)}.{i}", f"{blocks_path(teacher)}.{j}") for i, j in enumerate(places)]


def _matched_maps(student: nn.Module, teacher: nn.Module) -> list[tuple[str, str]]:
    """The attention modules of matched blocks, where both have heads left, by path."""
    ours, theirs = (
        {s.block: next(iter(s.producers)).rpartition(".")[0] for s in sublayers(model) if s.kind == "attention"}
        for model in (student, teacher)
    )
    places = _places(student, teacher)
    return [(ours[i], theirs[j]) for i, j in enumerate(places) if i in ours and j in theirs]


def _places(student: nn.Module, teacher: nn.Module) -> list[int]:
    ours, theirs = student.config.num_hidden_layers, teacher.config.num_hidden_layers
    return [max(1, round((i + 1) * theirs / ours)) - 1 for i in range(ours)]


def _side(pairs: Sequence[tuple[str, str]], which: int) -> list[str]:
    return [pair[which] for pair in pairs]


def _watched(
    model: nn.Module, batch: Batch, blocks: Sequence[str], attentions: Sequence[str]
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The logits, what leaves each of the `blocks`, and the maps of each of the `attentions`, by path."""
    states: dict[str, Tensor] = {}
    maps: dict[str, Tensor] = {}

    def look(into: dict[str, Tensor], path: str, place: int):
        def hook(module, args, output):
            into[path] = output[place] if isinstance(output, tuple) else output

        return hook

    handles = [model.get_submodule(p).register_forward_hook(look(states, p, 0)) for p in blocks]
    handles += [model.get_submodule(p).register_forward_hook(look(maps, p, 1)) for p in attentions]
    try:
        return run(model, batch).float(), states, maps
    finally:
        for handle in handles:
            handle.remove()
