"""Images of rotated objects under colored light with known latents, drawn without a renderer."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from .._checks import one_of, whole
from .._errors import InputError
from ..geometry import Change, quaternion_code
from ._objects import Objects

_SLOPE = math.sqrt(0.5)
_RIGHT, _UP, _TOWARD = (-1.0, 0.0, 0.0), (0.0, -_SLOPE, _SLOPE), (0.0, _SLOPE, _SLOPE)  # camera 45 degrees up
_DISTANCE, _ZOOM = 2.5, 1.05
_THICKNESS = 0.06  # points this close behind the foremost one of a pixel belong to the same surface
_PALETTE = ((0.75, 0.75, 0.75), (0.95, 0.35, 0.30), (0.30, 0.50, 0.95), (0.95, 0.90, 0.30))
_STEPS = 2**16  # colors are summed as integers, so that the order does not matter
_PIECE = 64  # images drawn at a time


class Pairs(NamedTuple):
    """Pairs of views of objects, with the poses and hues of both."""

    first: UInt8[Tensor, "pairs 3 size size"]
    """First views, `(pairs, 3, size, size)`."""
    second: UInt8[Tensor, "pairs 3 size size"]
    """Second views, `(pairs, 3, size, size)`."""
    poses: tuple[Float[Tensor, "pairs 3 3"], Float[Tensor, "pairs 3 3"]]
    """Rotation matrices of the first and of the second views, `(pairs, 3, 3)` each."""
    hues: tuple[Float[Tensor, "pairs 2"], Float[Tensor, "pairs 2"]]
    """Hues of the floor and of the light, for the first and for the second views, `(pairs, 2)` each."""
    labels: Int[Tensor, " pairs"]
    """Class of the object of each pair, `(pairs,)`."""


class Views(NamedTuple):
    """Images of objects with the latents used to draw them."""

    images: UInt8[Tensor, "objects views 3 size size"]
    """Images, `(objects, views, 3, size, size)`."""
    poses: Float[Tensor, "objects views 3 3"]
    """Rotation matrices of the objects, `(objects, views, 3, 3)`."""
    hues: Float[Tensor, "objects views 2"]
    """Hues of the floor and of the light, each on a circle of length one, `(objects, views, 2)`."""
    light: Float[Tensor, "objects views 2"]
    """Polar angle and azimuth of the light, in radians, `(objects, views, 2)`."""
    labels: Int[Tensor, " objects"]
    """Class of each object, `(objects,)`."""

    def pairs(self, number: int, generator: torch.Generator) -> Pairs:
        """Draw pairs of two different views of a random object.

        Args:
            number: Number of pairs.
            generator: Source of randomness, on the CPU.

        Raises:
            InputError: If objects have fewer than two views, or the number is negative.
        """
        objects, views = self.images.shape[:2]
        if not objects or views < 2 or number < 0:
            raise InputError(
                f"pairs need objects with at least two views, got {number} pairs of {objects} with {views}"
            )
        device = self.images.device
        row = torch.randint(0, objects, (number,), generator=generator)
        one = torch.randint(0, views, (number,), generator=generator)
        other = (one + torch.randint(1, views, (number,), generator=generator)) % views
        row, one, other = (i.to(device) for i in (row, one, other))
        poses = (self.poses[row, one], self.poses[row, other])
        hues = (self.hues[row, one], self.hues[row, other])
        return Pairs(self.images[row, one], self.images[row, other], poses, hues, self.labels[row])


def shapes3d(
    objects: Objects,
    views: int,
    generator: torch.Generator,
    *,
    size: int = 32,
    poses: Literal["usual", "unseen"] = "usual",
    device: torch.device | str = "cpu",
) -> Views:
    """Draw views of objects in random poses, over a floor of random hue, under a light of random hue and direction.

    This is a small version of 3DIEBench that needs no download and no renderer: points are splatted into a depth
    buffer. Parts have the same colors in every class, so that color does not reveal the class. Images depend only on
    the generator's seed; on the same device they are identical bit for bit.

    Args:
        objects: Point clouds with normals in the unit ball, such as those of `object_clouds`.
        views: Number of views of each object.
        generator: Source of randomness for the latents, on the CPU.
        size: Side of the images, in pixels. About 1/20 of an object's pixels stay empty with `4 size^2` points on each
            object, 1/50 with `16 size^2`, most of them at its edges.
        poses: Distribution of the poses. `"usual"` draws rotations about the fixed axes x, y and z, in this order, by
            angles within a quarter turn. `"unseen"` draws rotations outside that set. (Angles between a quarter and
            half a turn about all three axes give usual poses again.)
        device: Device to draw on.

    Raises:
        InputError: If there are fewer points than pixels, or no views.

    Example:
        >>> from commutant.data import object_clouds
        >>> generator = torch.Generator().manual_seed(0)
        >>> views = shapes3d(object_clouds(2, 4000, generator), 3, generator)
        >>> views.images.shape, views.poses.shape
        (torch.Size([2, 3, 3, 32, 32]), torch.Size([2, 3, 3, 3]))

    Latents and their ranges are those of 3DIEBench (Garrido, Najman and LeCun, ICML 2023).
    """
    latents = _drawn_latents(len(objects.points), views, generator, poses)
    albedo = _albedo(objects, generator)
    images = draw_views(*(t.to(device) for t in (objects.points, objects.normals, albedo, *latents)), size=size)
    return Views(images, *(t.to(device) for t in (*latents, objects.labels)))


def single_changes(
    objects: Objects, views: int, generator: torch.Generator, *, size: int = 32, device: torch.device | str = "cpu"
) -> dict[str, Change]:
    """Draw pairs of views that differ in a single latent: pose, hue of the floor, hue of the light, or quarter turn.

    The result fits `commutant.geometry.equivariance_report`. Codes are the quaternion of the object's rotation, the
    cosine and sine of each change of hue, and the one-hot number of quarter turns of the image.

    Args:
        objects: Point clouds, as for `shapes3d`.
        views: Number of views of each object.
        generator: Source of randomness for the latents, on the CPU.
        size: Side of the images, in pixels.
        device: Device to draw on.

    Example:
        >>> from commutant.data import object_clouds
        >>> generator = torch.Generator().manual_seed(0)
        >>> sorted(single_changes(object_clouds(2, 4000, generator), 3, generator))
        ['floor hue', 'light hue', 'pose', 'quarter turn']
    """
    first, second = (_drawn_latents(len(objects.points), views, generator, "usual") for _ in range(2))
    albedo = _albedo(objects, generator)
    see = lambda latents: draw_views(  # noqa: E731
        *(t.to(device) for t in (objects.points, objects.normals, albedo, *latents)), size=size
    )
    before = see(first)
    floor, shine = second.hues.clone(), second.hues.clone()
    floor[..., 1], shine[..., 0] = first.hues[..., 1], first.hues[..., 0]
    angle = 2 * math.pi * (second.hues - first.hues)
    around = torch.stack([angle.cos(), angle.sin()], -1)
    quarter = torch.randint(0, 4, (len(before), views), generator=generator)
    turned = torch.stack([before.rot90(k, (-2, -1)) for k in range(4)])
    turned = turned.gather(0, quarter.to(before.device)[None, ..., None, None, None].expand(1, *before.shape))[0]
    return {
        "pose": Change(before, see(first._replace(poses=second.poses)), quaternion_code(first.poses, second.poses)),
        "floor hue": Change(before, see(first._replace(hues=floor)), around[..., 0, :]),
        "light hue": Change(before, see(first._replace(hues=shine)), around[..., 1, :]),
        "quarter turn": Change(before, turned, torch.nn.functional.one_hot(quarter, 4).float()),
    }


class _Latents(NamedTuple):
    poses: Float[Tensor, "objects views 3 3"]
    hues: Float[Tensor, "objects views 2"]
    light: Float[Tensor, "objects views 2"]


def _drawn_latents(objects: int, views: int, generator: torch.Generator, poses: str) -> _Latents:
    whole("views", views)
    one_of("poses", poses, ("usual", "unseen"))
    draw = lambda *more: torch.rand(objects, views, *more, generator=generator)  # noqa: E731
    turn = math.pi * (draw(3) - 0.5)
    if poses == "unseen":  # another half turn about x, about z, or about both
        which = torch.randint(1, 4, (objects, views), generator=generator)
        turn = turn + math.pi * torch.stack([which % 2, torch.zeros_like(which), which // 2], -1)
    return _Latents(_turned(turn), draw(2), draw(2) * torch.tensor([math.pi / 4, 2 * math.pi]))


def _albedo(objects: Objects, generator: torch.Generator) -> Float[Tensor, "objects n 3"]:
    noise = 0.05 * torch.randn(len(objects.points), len(_PALETTE), 3, generator=generator)
    colors = (torch.tensor(_PALETTE) + noise).clamp(0, 1)
    return colors.gather(1, objects.parts.cpu().remainder(len(_PALETTE))[..., None].expand(-1, -1, 3))


@torch.no_grad()
def draw_views(
    points: Float[Tensor, "objects n 3"],
    normals: Float[Tensor, "objects n 3"],
    albedo: Float[Tensor, "objects n 3"],
    poses: Float[Tensor, "objects views 3 3"],
    hues: Float[Tensor, "objects views 2"],
    light: Float[Tensor, "objects views 2"],
    *,
    size: int = 32,
) -> UInt8[Tensor, "objects views 3 size size"]:
    """Draw images of point clouds for given latents, as `shapes3d` does for random ones.

    Args:
        points: Points of each object in the unit ball, `(objects, n, 3)`.
        normals: Unit normals, `(objects, n, 3)`.
        albedo: Red, green and blue of each point in [0, 1], `(objects, n, 3)`.
        poses: Rotation matrices, `(objects, views, 3, 3)`.
        hues: Hues of the floor and of the light on a circle of length one, `(objects, views, 2)`.
        light: Polar angle and azimuth of the light in radians, `(objects, views, 2)`.
        size: Side of the images, in pixels.

    Raises:
        InputError: If there are fewer points than pixels, shapes do not match, or values are not finite.
    """
    given = (points, normals, albedo, poses, hues, light)
    device, (number, views) = points.device, poses.shape[:2]
    ends = ((points.shape[1], 3), (points.shape[1], 3), (points.shape[1], 3), (views, 3, 3), (views, 2), (views, 2))
    if any(t.shape != (len(points), *end) for t, end in zip(given, ends, strict=True)):
        raise InputError(
            "points, normals and albedo must be (objects, n, 3), poses (objects, views, 3, 3), hues and light "
            f"(objects, views, 2); got {', '.join(str(tuple(t.shape)) for t in given)}"
        )
    if not all(bool(t.isfinite().all()) for t in given):
        raise InputError("points, normals, albedo and latents must be finite, got NaN or infinities")
    points, normals, albedo, poses, hues, light = (t.float() for t in given)
    if size < 1 or points.shape[1] < size * size:
        raise InputError(
            f"images of {size} x {size} pixels need at least {size * size} points on each object, got {points.shape[1]}"
        )
    images = torch.empty(number * views, 3, size, size, dtype=torch.uint8, device=device)
    camera = torch.tensor([_RIGHT, _UP, _TOWARD], device=device)
    shine = _rgb(hues[..., 1], 1.0, 0.8).flatten(0, 1)
    floor = _rgb(hues[..., 0], 0.6, 0.6).flatten(0, 1)
    theta, phi = light.flatten(0, 1).unbind(-1)
    direction = torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], -1)
    turns = poses.flatten(0, 1)
    for start in range(0, len(images), _PIECE):
        part = slice(start, start + _PIECE)
        which = torch.arange(len(images), device=device)[part] // views
        seen_from = camera @ turns[part]
        x, upright = points[which] @ seen_from.mT, normals[which] @ seen_from.mT
        bright = (normals[which] @ (turns[part].mT @ direction[part, :, None])).clamp(min=0)
        color = albedo[which] * (0.35 + bright * (0.35 + 0.65 * shine[part, None]))
        back = _background(floor[part], shine[part], direction[part] @ camera[:2].mT, size)
        images[part] = _splat(x, upright, color, back).unflatten(1, (size, size)).movedim(-1, 1)
    return images.unflatten(0, (number, views))


def _splat(
    x: Float[Tensor, "k n 3"],
    upright: Float[Tensor, "k n 3"],
    color: Float[Tensor, "k n 3"],
    back: Float[Tensor, "k pixels 3"],
) -> UInt8[Tensor, "k pixels 3"]:
    """Return the mean color of the foremost points of each pixel; each point is as wide as a pixel.

    Coordinates of the points `x` and their normals `upright` are right, up, and toward the camera.
    """
    k, pixels = back.shape[:2]
    size = math.isqrt(pixels)
    camera = x.new_tensor([0.0, 0.0, _DISTANCE])
    picture, point = (((camera - x) * upright).sum(-1) > 0).nonzero(as_tuple=True)  # solids hide points that face away
    x, color = x[picture, point], color[picture, point]
    seen = (x[:, :2] * (_ZOOM * _DISTANCE / (_DISTANCE - x[:, 2:])) + 1) / 2 * size
    corner = torch.stack([size - seen[:, 1], seen[:, 0]], -1).sub(0.5).floor().long()
    near = corner[None] + torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], device=x.device)[:, None]
    inside = ((near >= 0) & (near < size)).all(-1)
    # points outside the image go into an extra pixel
    place = torch.where(inside, picture * pixels + near[..., 0] * size + near[..., 1], k * pixels)
    far = x[:, 2].expand(place.shape)
    depth = x.new_full((k * pixels + 1,), -math.inf).scatter_reduce(0, place.flatten(), far.flatten(), "amax")
    at, which = (inside & (far >= depth[place] - _THICKNESS)).nonzero(as_tuple=True)
    units = (color.clamp(0, 1) * (255 * _STEPS)).round().long()
    units = torch.cat([units, torch.ones_like(units[:, :1])], -1)
    total = torch.zeros(k * pixels, 4, dtype=torch.long, device=x.device)
    total.index_add_(0, place[at, which], units[which])
    total, count = total[:, :3], total[:, 3:]
    mean = torch.div(total + count * (_STEPS // 2), (count * _STEPS).clamp(min=1), rounding_mode="floor")
    behind = (back * 255).round().long().flatten(0, 1)
    return torch.where(count > 0, mean, behind).to(torch.uint8).unflatten(0, (k, pixels))


def _background(floor: Tensor, shine: Tensor, toward: Tensor, size: int) -> Float[Tensor, "k pixels 3"]:
    """Return the floor with a bright spot on the side that the light comes from."""
    steps = (torch.arange(size, device=floor.device) + 0.5) / size * 2 - 1
    grid = torch.stack(torch.meshgrid(-steps, steps, indexing="ij"), -1).flip(-1).flatten(0, 1)  # right, up
    spot = torch.exp(-(grid - toward[:, None]).square().sum(-1, keepdim=True) / 0.35)
    return (0.7 * floor[:, None] + 0.35 * spot * shine[:, None]).clamp(0, 1)


def _turned(angles: Float[Tensor, "*lead 3"]) -> Float[Tensor, "*lead 3 3"]:
    """Return `R_z R_y R_x`, the rotation by angles about the fixed axes x, y and z, in this order."""
    turns = []
    for axis, angle in enumerate(angles.unbind(-1)):
        generator = torch.zeros(3, 3, dtype=angles.dtype)
        generator[(axis + 2) % 3, (axis + 1) % 3], generator[(axis + 1) % 3, (axis + 2) % 3] = 1.0, -1.0
        turns.append(torch.linalg.matrix_exp(angle[..., None, None] * generator))
    return turns[2] @ turns[1] @ turns[0]


def _rgb(hue: Float[Tensor, "*lead"], saturation: float, value: float) -> Float[Tensor, "*lead 3"]:
    """Return red, green and blue of a hue on the circle of length one."""
    k = (torch.tensor([5.0, 3.0, 1.0], device=hue.device) + 6 * hue[..., None]) % 6
    return value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1)
