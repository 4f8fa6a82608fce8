"""Splits a reply, as it comes, into thoughts and the answer.

Knows how models mark their thoughts, which differs by family; the text of a model's chat template tells
which family it is of.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from engine.types import ThinkingBudget
from server.chat.channels import BODY, FINAL_HEADER, START, ChannelSplitter
from server.chat.markers import Piece, find_marker, held_back
from server.chat.recipients import MARK, USER, RecipientSplitter


class Splitter(Protocol):
    """Takes the text of one reply and gives its pieces; any cutting of the text gives the same thoughts
    and the same answer."""

    @property
    def thinking(self) -> bool:
        """Whether the text so far ends inside a thought."""

    def push(self, text: str) -> list[Piece]:
        """More of the reply -> what is decided by now. Only what may become a tag is held back."""

    def flush(self) -> list[Piece]:
        """The reply has ended -> what was held back."""


@dataclass(frozen=True, slots=True)
class Family:
    """One way to mark thoughts. `silent`: tags round the answer, which vanish.

    `signs`: what a template of this family has in its text.
    """

    opening: str
    closing: str
    signs: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()

    def marked_in(self, template: str) -> bool:
        """Whether the template says that its model thinks this way."""
        return all(sign in template for sign in self.signs or (self.closing,))

    def is_open(self, prompt: str, continued: str = "") -> bool:
        """Whether a reply to `prompt` begins inside a thought.

        That is so where the prompt ends in an opening tag, or where `continued`, the beginning of a
        reply that goes on, begins with a thought without an end. Tags in what others said do not count.
        """
        if prompt.rstrip().endswith(self.opening):
            return True
        return continued.lstrip().startswith(self.opening) and self._ends_open(continued)

    def _ends_open(self, text: str) -> bool:
        return text.rfind(self.opening) > text.rfind(self.closing)

    def close(self, prompt: str, continued: str, *, tools: bool) -> str:
        """The prompt with an open thought ended, for replies that must not think.

        `tools`: a call of a tool is to follow rather than an answer.
        """
        return f"{prompt.rstrip()}\n{self.closing}\n\n" if self.is_open(prompt, continued) else prompt

    def budget(self, tokens: int, *, tools: bool) -> ThinkingBudget | None:
        """At most so many tokens of thought; `tools`: a call may follow instead of an answer."""
        return ThinkingBudget(
            tokens, self.opening, self.closing, f"\n(Reasoning budget exceeded)\n{self.closing}"
        )

    def splitter(self, prompt: str, continued: str, *, keep_tags: bool, tools: bool) -> Splitter:
        """The splitter for a reply to `prompt`.

        `keep_tags` leaves the thoughts as they are written, tags included, for those who show the whole
        text. `tools`: calls of tools are in the reply, for somebody else to find.
        """
        return TagSplitter(self, inside=self.is_open(prompt, continued), keep_tags=keep_tags)


class Channels(Family):
    """Harmony: a reply is a row of messages, and the channel of each says what it is."""

    __slots__ = ()

    def close(self, prompt: str, continued: str, *, tools: bool) -> str:
        """See `Family.close`; the answer's message is begun as well."""
        if self.is_open(prompt, continued):
            prompt = f"{prompt}{self.closing}{START}assistant"
        return prompt + FINAL_HEADER if prompt.endswith(f"{START}assistant") and not tools else prompt

    def is_open(self, prompt: str, continued: str = "") -> bool:
        """See `Family.is_open`; the message that the prompt ends in tells."""
        return self._ends_open(prompt[prompt.rfind(START) :])

    def budget(self, tokens: int, *, tools: bool) -> ThinkingBudget:
        """See `Family.budget`; the next message is the answer's, unless it may be a call."""
        header = "" if tools else FINAL_HEADER
        closing = f"\n(Reasoning budget exceeded)\n{self.closing}{START}assistant{header}"
        return ThinkingBudget(tokens, self.opening, self.closing, closing)

    def splitter(self, prompt: str, continued: str, *, keep_tags: bool, tools: bool) -> Splitter:
        """The splitter for a reply to `prompt`, which begins in whatever message the prompt ends in."""
        begun = prompt[prompt.rfind(START) + len(START) :] if START in prompt else ""
        return ChannelSplitter(begun, keep_tags=keep_tags, calls=tools)


class Recipients(Family):
    """Functionary: a reply is a row of parts, each to the user or to a function. It has no thoughts."""

    __slots__ = ()

    def budget(self, tokens: int, *, tools: bool) -> None:
        """Nothing to bound."""

    def splitter(self, prompt: str, continued: str, *, keep_tags: bool, tools: bool) -> Splitter:
        """See `Family.splitter`; a reply begins with a name where the prompt ends in the mark."""
        return RecipientSplitter(opened=prompt.endswith(MARK), calls=tools)


THINK = Family("<think>", "</think>")
SEED = Family("<seed:think>", "</seed:think>")
MAGISTRAL = Family("[THINK]", "[/THINK]")
COHERE = Family(
    "<|START_THINKING|>",
    "<|END_THINKING|>",
    silent=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
)
GEMMA = Family("<|channel>thought", "<channel|>")
KIMI_3 = Family(
    "<|open|>think<|sep|>",
    "<|close|>think<|sep|>",
    signs=("<|open|>", "<|close|>", "<|sep|>"),
    silent=("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>"),
)
SOLAR = Family(
    "<|think|>",
    "<|end|>",
    signs=("<|think|>", "<|content|>"),
    silent=("<|content|>", "<|begin|>assistant", "<|end|>", "<|flush|>"),
)
APERTUS = Family("<|inner_prefix|>", "<|inner_suffix|>")
MINICPM = Family("<|thought_start|>", "<|thought_end|>")
HUNYUAN = Family("<think:opensource>", "</think:opensource>")
HARMONY = Channels(f"<|channel|>analysis{BODY}", "<|end|>", signs=("<|channel|>", BODY))

FUNCTIONARY = Recipients("<think>", "</think>", signs=(MARK + USER,))

FAMILIES = (
    FUNCTIONARY,
    HARMONY,
    KIMI_3,
    SOLAR,
    GEMMA,
    COHERE,
    SEED,
    MAGISTRAL,
    APERTUS,
    MINICPM,
    HUNYUAN,
    THINK,
)


def family_of(template: str | None) -> Family:
    """The family that a chat template's text speaks of; `<think>` where it speaks of none."""
    return next((family for family in FAMILIES if template and family.marked_in(template)), THINK)


class TagSplitter:
    """Thoughts between an opening and a closing tag, before the answer.

    An opening tag counts only before the first word of the answer: later it is something that the
    model speaks of. Blanks round a thought belong to neither side.
    """

    def __init__(self, family: Family, *, inside: bool = False, keep_tags: bool = False) -> None:
        self._family = family
        self._keep_tags = keep_tags
        self._held = ""
        self._read: Callable[[str], list[Piece]] = self._read_thought if inside else self._read_start
        self._blank = inside
        """Blanks at this place are those round a thought."""

    @property
    def thinking(self) -> bool:
        """Whether the text so far ends inside a thought."""
        return self._read == self._read_thought

    def push(self, text: str) -> list[Piece]:
        """More of the reply -> what is decided by now."""
        return self._merged(self._read(self._held + text))

    def flush(self) -> list[Piece]:
        """The reply has ended -> what was held back."""
        rest, self._held = self._held, ""
        if self._keep_tags:
            return self._merged([Piece(rest, self.thinking)])
        if self.thinking:
            rest = rest.rstrip()
        return self._merged([Piece(rest.lstrip() if self._blank else rest, self.thinking)])

    def _merged(self, pieces: list[Piece]) -> list[Piece]:
        return [piece for piece in pieces if piece.text]

    def _read_start(self, text: str) -> list[Piece]:
        """Before the answer's first word, where a thought may begin."""
        opening = self._family.opening
        bare = text.lstrip()
        if bare.startswith(opening):
            cut = len(text) - len(bare) + len(opening)
            self._read, self._blank = self._read_thought, True
            self._held = ""
            return [*self._kept(text[:cut]), *self._read_thought(text[cut:])]
        if opening.startswith(bare):
            self._held = text
            return []
        self._read = self._read_answer
        return self._read_answer(bare if self._blank and not self._keep_tags else text)

    def _read_thought(self, text: str) -> list[Piece]:
        closing = self._family.closing
        thought, found, after = text.partition(closing)
        if found:
            self._read, self._held = self._read_start, ""
            shown = self._kept(thought + closing) or [Piece(self._trimmed(thought).rstrip(), True)]
            self._blank = True
            return [*shown, *self._read_start(after)]
        if self._keep_tags:
            decided = len(text) - held_back(text, (closing,))
        else:
            text = self._trimmed(text)
            decided = len(text[: len(text) - held_back(text, (closing,))].rstrip())
        self._held = text[decided:]
        self._blank = self._blank and not decided
        return [Piece(text[:decided], True)]

    def _read_answer(self, text: str) -> list[Piece]:
        silent = self._family.silent
        pieces = []
        while (marker := find_marker(text, silent)) is not None:
            pieces.append(Piece(text[: marker.start], False))
            text = text[marker.end :]
        decided = len(text) - held_back(text, silent)
        self._held = text[decided:]
        return [*pieces, Piece(text[:decided], False)]

    def _trimmed(self, thought: str) -> str:
        return thought.lstrip() if self._blank else thought

    def _kept(self, text: str) -> list[Piece]:
        return [Piece(text, True)] if self._keep_tags else []
