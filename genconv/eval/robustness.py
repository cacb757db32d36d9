"""How many images are classified rightly when the worst is done to them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genconv.eval.attack import Defence, Norm, attack
from genconv.eval.classifier import SmallClassifier
from genconv.eval.purify import Purified, likeliest
from genconv.seeds import stream

__all__ = ["Attempt", "Outcome", "attempts", "doubts", "survived", "tried"]


@dataclass(frozen=True)
class Attempt:
    """An attack on a defence.

    Attributes:
        defence: its name.
        attack: its name.
        judged: what has to classify the attacked images.
        target: what the attack believes it is up against; None for random noise as large.
    """

    defence: str
    attack: str
    judged: Defence
    target: Defence | None


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt at one radius: who is `right` (N,), and the `images` (N, C, H, W)."""

    right: Tensor
    images: Tensor


def attempts(classifier: SmallClassifier, purified: Purified, energy: bool) -> list[Attempt]:
    """Return what is tried: on the classifier, behind the energy, and on the energy itself."""

    def bare(x: Tensor, generator: Sequence[torch.Generator]) -> Tensor:
        return classifier.logits(x)

    straight = replace(purified, derivative="straight")
    found = [
        Attempt("classifier", "random noise", bare, None),
        Attempt("classifier", "attacked", bare, bare),
    ]
    if purified.runs:
        found += [
            Attempt("purified", "the classifier attacked", purified, bare),
            Attempt("purified", "attacked straight through", purified, straight),
            Attempt("purified", "attacked through the chain", purified, purified),
        ]
    if energy:
        bayes = likeliest(purified.trained.energy)

        def asked(x: Tensor, generator: Sequence[torch.Generator]) -> Tensor:
            return bayes(x)

        found += [
            Attempt("energy", "random noise", asked, None),
            Attempt("energy", "attacked", asked, asked),
        ]
    return found


def tried(
    attempt: Attempt,
    x: Tensor,
    y: Tensor,
    radius: float,
    *,
    norm: Norm = "linf",
    steps: int = 20,
    seed: int = 0,
    first: int = 0,
) -> Outcome:
    """Make an attempt on images (N, C, H, W) in [-1, 1], the first of which has this number.

    Args:
        attempt: what is tried.
        x: the images.
        y: (N,) their classes.
        radius: for images in [0, 1]; 0 leaves them as they are.
        norm: of the change, see `genconv.eval.attack.within`.
        steps: of an attack.
        seed: of attacks and judges.
        first: an image has random numbers of its own, whatever it is attacked beside.
    """

    def streams(what: str) -> list[torch.Generator]:
        place = (what, attempt.defence, attempt.attack, str(radius))
        rows = range(first, first + len(x))
        return [stream(seed, *place, row, device=x.device) for row in rows]

    images = x
    if radius:
        images = attack(
            attempt.target or attempt.judged,
            x,
            y,
            # images in [-1, 1] are twice as wide
            radius=2 * radius,
            norm=norm,
            steps=steps if attempt.target else 0,
            generator=streams("attack"),
        )
    with torch.no_grad():
        logits = attempt.judged(images, streams("judge"))
    # a class that NaN has won is no answer
    right = (logits.argmax(1) == y) & logits.isfinite().all(1)
    return Outcome(right.cpu(), images.cpu())


def survived(outcomes: Sequence[Outcome]) -> list[Tensor]:
    """Return who is right at every radius (N,): whoever a smaller change has fooled is fooled."""
    found = [outcomes[0].right]
    for outcome in outcomes[1:]:
        found.append(found[-1] & outcome.right)
    return found


def doubts(rows: dict[str, list[float]], chance: float) -> list[str]:
    """Return reasons to doubt that the attacks found what there is to be found.

    Args:
        rows: accuracy at radius 0 and at every radius, by defence and attack.
        chance: the accuracy of a guess.

    Reference:
        Carlini et al.: On Evaluating Adversarial Robustness, https://arxiv.org/abs/1902.06705
    """
    found = []
    for defence in ("classifier", "purified", "energy"):
        names = [name for name in rows if name.startswith(f"{defence}, ")]
        attacked = [name for name in names if "attacked" in name]
        if not attacked:
            continue
        least = min(rows[name][-1] for name in attacked)
        if least > chance:
            found.append(
                f"{defence}: {least:.0%} are right even at the largest radius, where a guess has "
                f"{chance:.0%}; give a larger one, or more --steps, before you trust the others"
            )
        noise = rows.get(f"{defence}, random noise")
        if noise and any(a > b + 0.02 for a, b in zip(rows[attacked[-1]], noise, strict=True)):
            found.append(f"{defence}: random noise fools it more often than the attack does")
    through, straight = (
        rows.get(f"purified, attacked {way}") for way in ("through the chain", "straight through")
    )
    if through and straight and all(a > b for a, b in zip(through[1:], straight[1:], strict=True)):
        found.append("purified: the chain's own derivative is of less use than none: it explodes")
    return found
