"""Generated geometry: particles obey their physics, normals are perpendicular to surfaces, tours are shortest."""

import itertools

import pytest
import torch

from commutant import InputError
from commutant.data import OBJECT_CLASSES, charged_particles, object_clouds, solid_surfaces
from commutant.data._surfaces import BODIES, stretched
from commutant.papers.tinvnn.models import Solver, shortest_tours, tour_length


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_two_charges_attract_or_repel_and_keep_their_momentum():
    data = charged_particles(200, generator(), particles=2, warm_up=0, horizon=200)
    apart = (data.position[:, 0] - data.position[:, 1]).norm(dim=-1)
    straight = data.position + 0.2 * data.velocity
    push = ((data.target - straight)[:, 0] * (data.position[:, 0] - data.position[:, 1])).sum(-1)
    gentle = apart > 0.7
    alike = data.charge.prod(1) > 0
    assert bool((push[gentle & alike] > 0).all())
    assert bool((push[gentle & ~alike] < 0).all())
    assert torch.allclose(data.target.mean(1), straight.mean(1), atol=1e-5)
    assert torch.allclose(data.velocity.norm(dim=-1), torch.tensor(0.5))


def test_a_force_is_that_of_coulomb():
    data = charged_particles(50, generator(1), particles=3, warm_up=0, horizon=2)
    v, q = data.velocity.double(), data.charge.double()
    x = data.position.double() + 1e-3 * v
    force = torch.zeros_like(x)
    for i, j in itertools.permutations(range(3), 2):
        r = x[:, i] - x[:, j]
        force[:, i] += (q[:, i] * q[:, j] / r.norm(dim=-1) ** 3)[:, None] * r
    after = x + 1e-3 * (v + 1e-3 * force.clamp(-100, 100))
    assert torch.allclose(data.target.double(), after, atol=1e-6)


def test_energy_is_kept_by_systems_whose_particles_stay_apart():
    data = charged_particles(300, generator(2), particles=2, warm_up=0, horizon=1500)
    later = charged_particles(300, generator(2), particles=2, warm_up=1500, horizon=0)
    alike = data.charge.prod(1) > 0
    energy = [
        d.velocity.double().square().sum((1, 2)) / 2
        + d.charge.prod(1) / (d.position[:, 0] - d.position[:, 1]).norm(dim=-1)
        for d in (data, later)
    ]
    change = (energy[1] - energy[0])[alike]
    assert float(change.abs().median()) < 0.005
    assert abs(float(change.mean())) < 0.01


@pytest.mark.parametrize("body", BODIES)
def test_normals_stand_upright_on_their_surface(body):
    """Check that nearby points lie in the plane of the normal, to second order, and that normals point outward."""
    sizes = torch.tensor([[[0.9, 0.5, 0.7]]])
    surface = stretched(BODIES[body]((1, 40_000), generator()), sizes)
    x, n = surface.points[0].double(), surface.normals[0].double()
    assert torch.allclose(n.norm(dim=-1), torch.ones(len(n)).double(), atol=1e-5)
    near = torch.cdist(x[:300], x).topk(4, largest=False).indices[:, 1:]
    steps = x[near] - x[:300, None]
    off = (steps * n[:300, None]).sum(-1).abs() / steps.norm(dim=-1).clamp(min=1e-9)
    assert float(off.median()) < 0.03
    inside = torch.zeros_like(x)
    if body == "torus":  # from the middle of the tube
        inside = torch.nn.functional.normalize(x / sizes[0].double() * torch.tensor([1.0, 1.0, 0.0]), dim=-1) * 0.7
        inside = inside * sizes[0].double()
    assert float((((x - inside) * n).sum(-1) > -1e-6).double().mean()) > 0.999


def test_clouds_of_solids_are_centred_and_scaled():
    surfaces = solid_surfaces(40, 500, generator())
    assert torch.allclose(surfaces.points.mean(1), torch.zeros(40, 3), atol=1e-4)
    assert torch.allclose(surfaces.points.norm(dim=-1).std(1), torch.ones(40), atol=1e-4)
    again = solid_surfaces(40, 500, generator())
    assert torch.equal(surfaces.points, again.points)


def test_objects_fill_the_unit_ball_and_show_every_part():
    data = object_clouds(35, 200, generator())
    assert len(OBJECT_CLASSES) == 10
    assert data.labels.bincount().tolist() == [4] * 5 + [3] * 5
    assert torch.allclose(data.points.norm(dim=-1).amax(1), torch.ones(35), atol=1e-5)
    assert all(len(p.unique()) in (3, 4) and int(p.bincount().min()) >= 20 for p in data.parts)
    assert torch.allclose(data.normals.norm(dim=-1), torch.ones(35, 200), atol=1e-4)
    assert object_clouds(0, 50, generator()).points.shape == (0, 50, 3)
    with pytest.raises(InputError, match="at least 40"):
        object_clouds(3, 39, generator())


def test_shortest_tours_are_shortest():
    x = torch.rand(6, 7, 2, generator=generator())
    tours = torch.tensor([[0, *p] for p in itertools.permutations(range(1, 7))])
    lengths = tour_length(x, tours.expand(6, -1, -1))
    assert torch.allclose(shortest_tours(x).float(), lengths.amin(1), atol=1e-5)


def test_the_solver_visits_every_city_once():
    x = torch.rand(4, 8, 2, generator=generator())
    tours, logs = Solver(torch.nn.Identity())(x, 8, False)
    assert torch.equal(tours.sort(-1).values, torch.arange(8).expand(4, 8, 8))
    assert torch.equal(tours[..., 0], torch.arange(8).expand(4, 8))
    assert bool((logs < 0).all())
