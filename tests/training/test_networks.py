"""Shapes, contract, cost and the promises that the networks make about their answers."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rt_swap.aus import NUM_AUS, AuId
from rt_swap.contract import (
    CROP_SIZE_PX,
    ENCODER_SPEC,
    GENERATOR_SPEC,
    PARITY_ATOL_FP32,
    TOKEN_DIM,
    some_landmarks,
)
from training.compose import compose, fetch
from training.config import LOOK_XYXY, get_config
from training.data.dataset import mirror_aus
from training.networks import Critics, RtNet, build, mix_tokens
from training.networks.critics import EYES_XYXY, MOUTH_XYXY, cut
from training.networks.encoder import cut_look, look
from training.networks.export_graphs import EncoderGraph, GeneratorGraph
from training.networks.generator import BESIDE_PX, firm_shrink, straight_through, with_mouth
from training.networks.mouth import (
    DENTURE_HW,
    DENTURE_SCALE,
    DENTURE_XYXY,
    TEETH_XYXY,
    MouthLayers,
)

SMOKE = get_config("smoke").network
LANDMARKS = torch.from_numpy(some_landmarks())


@pytest.fixture
def net() -> RtNet:
    return build(SMOKE).eval()


def shout(net: RtNet) -> RtNet:
    """Weights of the heads large enough for answers all over their ranges."""
    for head in (net.generator.head_smooth, net.generator.head_sharp):
        torch.nn.init.normal_(head.weight, std=1.0)
    return net


@pytest.mark.parametrize("size_px", [32, 64])
def test_shapes_follow_the_crop(net: RtNet, size_px: int) -> None:
    net.requires_grad_(False)
    encoded = net.encoder(look(torch.rand(2, 3, size_px, size_px)))
    assert encoded.tokens.shape == (2, NUM_AUS, TOKEN_DIM)
    assert encoded.aus_lr.shape == (2, NUM_AUS, 2)
    assert float(encoded.aus_lr.min()) >= 0
    assert float(encoded.aus_lr.max()) <= 1
    said = net.generator(encoded.features, encoded.tokens, encoded.tokens, size_px)
    for value, channels in ((said.flow_xy, 2), (said.keep, 1), (said.fill_rgb, 3), (said.shade, 1)):
        assert value.shape == (2, channels, size_px, size_px)
    assert said.au_free.shape == (2, SMOKE.au_free_channels, 12, 11)


@pytest.mark.parametrize("name", ["rt-nano", "rt-small", "rt-base"])
def test_cost_stays_in_its_budget(name: str) -> None:
    net, crop = build(get_config(name).network).eval(), torch.rand(1, 3, 256, 256)
    tokens = torch.rand(1, NUM_AUS, TOKEN_DIM)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        GeneratorGraph(net)(
            crop, LANDMARKS, tokens, tokens, torch.ones(1, NUM_AUS), torch.zeros(1, 1)
        )
    gmac = counter.get_total_flops() / 2e9
    low, high = {"rt-nano": (0.2, 0.6), "rt-small": (0.6, 1.2), "rt-base": (1.5, 4.0)}[name]
    assert low < gmac <= high, f"{name} takes {gmac:.2f} GMAC a frame"


def test_export_graphs_speak_the_contract(net: RtNet) -> None:
    inputs = [torch.rand(spec.shape) for spec in GENERATOR_SPEC.inputs]
    outputs = GeneratorGraph(net)(*inputs)
    assert [tuple(o.shape) for o in outputs] == [spec.shape for spec in GENERATOR_SPEC.outputs]
    assert all(o.dtype == torch.float32 for o in outputs)
    outputs = EncoderGraph(net)(torch.rand(ENCODER_SPEC.inputs[0].shape))
    assert [tuple(o.shape) for o in outputs] == [spec.shape for spec in ENCODER_SPEC.outputs]


def test_exported_reading_of_a_mirrored_face_is_the_mirrored_reading(net: RtNet) -> None:
    picture = torch.rand(1, 3, CROP_SIZE_PX, CROP_SIZE_PX)
    torch.nn.init.normal_(net.encoder.tokens.wide_out.weight)
    reader = EncoderGraph(net)
    with torch.no_grad():
        said = net.label_tokens.inverse(reader(picture)[0])
        mirrored = net.label_tokens.inverse(reader(picture.flip(3))[0])
        once = net.label_tokens.inverse(net.encoder(look(picture)).tokens)
    torch.testing.assert_close(
        mirrored, torch.from_numpy(mirror_aus(said.numpy())), atol=1e-4, rtol=1e-4
    )
    assert (said - once).abs().max() > 1e-3  # which one reading alone does not do
    alone = EncoderGraph(RtNet(replace(SMOKE, read_mirrored=False)).eval())
    alone.encoder.load_state_dict(net.encoder.state_dict())
    torch.testing.assert_close(net.label_tokens.inverse(alone(picture)[0]), once)


def two_bars() -> tuple[torch.Tensor, torch.Tensor]:
    """A denture that is a white bar above and a red one below, each four crop pixels high; the
    lower one falls ten pixels with AU26 and goes nowhere else.
    """
    layers, by_unit = torch.zeros(2, 4, *DENTURE_HW), torch.zeros(2, 2 * NUM_AUS, 2, 3)
    for layer, (top, colour) in enumerate(((40, (1.0, 1.0, 1.0)), (60, (1.0, 0.0, 0.0)))):
        rows, columns = slice(top, top + 6), slice(30, 114)
        layers[layer, :3, rows, columns] = torch.tensor(colour)[:, None, None]
        layers[layer, 3, rows, columns] = 1.0
    by_unit[1, 2 * AuId.AU26.index, 1, 2] = 10.0
    return layers, by_unit


def mouth_of_bars() -> MouthLayers:
    torch.manual_seed(0)
    mouth = MouthLayers(replace(SMOKE, mouth_hidden=8)).eval()
    assert mouth.is_empty
    mouth.wear(*two_bars())
    assert not mouth.is_empty
    return mouth


def drawn_by(mouth: MouthLayers, aus_lr: torch.Tensor) -> torch.Tensor:
    count = len(aus_lr)
    x = torch.rand(count, SMOKE.decoder_channels[3], 96, 88)
    sixteenth = torch.rand(count, SMOKE.stem_channels[3], 12, 11)
    with torch.no_grad():
        inside, logit = mouth(x, sixteenth, torch.rand(count, SMOKE.condition_dim), aus_lr)
    assert inside.shape == (count, 3, 88, 104) and logit.shape == (count, 1, 88, 104)
    return inside


def test_lower_teeth_follow_the_jaw_and_upper_ones_stay() -> None:
    mouth = mouth_of_bars()
    aus = torch.zeros(2, 2 * NUM_AUS)
    aus[1, 2 * AuId.AU26.index] = 1.0
    closed, opened = drawn_by(mouth, aus)
    middle = closed.shape[2] // 2
    top = DENTURE_XYXY[1] - TEETH_XYXY[1]
    for picture, fall in ((closed, 0), (opened, 10)):
        red = picture[0, :, middle] - picture[1, :, middle]
        white = picture[2, :, middle]
        rows = torch.arange(len(red)) + 0.5
        low = (rows * (red > 0.3)).sum() / (red > 0.3).sum()
        high = (rows * (white > 0.3)).sum() / (white > 0.3).sum()
        assert low.item() == pytest.approx(top + 63 / DENTURE_SCALE + fall, abs=0.5)
        assert high.item() == pytest.approx(top + 43 / DENTURE_SCALE, abs=0.5)


def test_a_mouth_can_sit_elsewhere_and_be_lit_otherwise() -> None:
    mouth = mouth_of_bars()
    mouth.get_buffer("behind_rgb").zero_()
    aus = torch.zeros(1, 2 * NUM_AUS)
    first = drawn_by(mouth, aus)[0]
    with torch.no_grad():
        mouth.say.bias[5] = 3 * np.arctanh(2 / 3)  # within its bounds 2: pixels down
        lower = drawn_by(mouth, aus)[0]
        mouth.say.bias[5] = 0.0
        mouth.say.bias[11] = 3 * np.arctanh(2 / 3)  # the jaw alone
        jaw = drawn_by(mouth, aus)[0]
        mouth.say.bias[11] = 0.0
        mouth.say.bias[12] = 3 * np.arctanh(-2 / 3)
        dark = drawn_by(mouth, aus)[0]
    torch.testing.assert_close(lower[:, 2:], first[:, :-2], atol=1e-4, rtol=0)
    red, white = first[0] - first[1], first[1:]
    torch.testing.assert_close((jaw[0] - jaw[1])[2:], red[:-2], atol=1e-4, rtol=0)
    torch.testing.assert_close(jaw[2], white[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(dark, first * np.exp(-2 * 0.3), atol=1e-4, rtol=0)


def test_layers_are_put_by_the_maps_they_say() -> None:
    """The jaw's own map comes after the units', the head's after both; a picture looks the way
    back.
    """
    torch.manual_seed(1)
    mouth = mouth_of_bars()
    by_unit = mouth.get_buffer("by_unit")
    by_unit[1] = torch.randn(2 * NUM_AUS, 2, 3) * torch.tensor([0.004, 0.004, 0.5])
    ramp = torch.linspace(0, 1, DENTURE_HW[1]).expand(DENTURE_HW)
    rise = torch.linspace(0, 1, DENTURE_HW[0])[:, None].expand(DENTURE_HW)
    mouth.get_buffer("layers")[:, 0], mouth.get_buffer("layers")[:, 1] = ramp, rise
    aus, said = torch.rand(1, 2 * NUM_AUS), 3 * torch.randn(1, 16).clamp(-1, 1)
    placed = mouth._placed(aus, said, None)

    def square(two_by_three: torch.Tensor) -> torch.Tensor:
        return torch.cat([two_by_three, torch.tensor([[0.0, 0.0, 1.0]])])

    step, unit = torch.tensor([0.02, 0.02, 1.0]), square(torch.eye(3)[:2])
    head = unit + square(said[0, :6].reshape(2, 3) * step) * torch.tensor([[1.0], [1.0], [0.0]])
    jaw = said[0, 6:12].reshape(2, 3) * step
    for layer, picture in enumerate(placed):
        own = (aus[0, :, None, None] * by_unit[layer]).sum(0) + layer * jaw
        whole = head @ square(torch.eye(3)[:2] + own)
        x0, y0, x1, y1 = DENTURE_XYXY
        for x, y in ((50, 30), (40, 44), (64, 40)):  # pixels of the box
            place = torch.tensor(
                [x + 0.5 + TEETH_XYXY[0] - 128, y + 0.5 + TEETH_XYXY[1] - 128, 1.0]
            )
            from_x, from_y, _ = (torch.linalg.inv(whole) @ place).tolist()
            across, down = (from_x + 128 - x0) / (x1 - x0), (from_y + 128 - y0) / (y1 - y0)
            assert 0.05 < across < 0.95 and 0.05 < down < 0.95
            want = [
                (share * count - 0.5) / (count - 1)
                for share, count in ((across, DENTURE_HW[1]), (down, DENTURE_HW[0]))
            ]
            torch.testing.assert_close(picture[0, :2, y, x], torch.tensor(want), atol=1e-3, rtol=0)


def test_no_answer_can_turn_a_layer_over() -> None:
    mouth = mouth_of_bars()
    for sign in (-1.0, 1.0):
        torch.nn.init.constant_(mouth.say.bias, sign * 1e4)
        assert bool(torch.isfinite(drawn_by(mouth, torch.full((1, 2 * NUM_AUS), sign * 9))).all())


def test_mouth_covers_the_fill_where_it_is_and_learns_its_place_from_its_place_alone() -> None:
    fill, inside = torch.rand(1, 3, 192, 176), torch.rand(1, 3, 88, 104, requires_grad=True)
    logit = torch.full((1, 1, 88, 104), -40.0)
    logit[..., 20:30, 50:60] = 40.0
    logit.requires_grad_()
    kept = torch.full((1, 1, 192, 176), 40.0)
    both = with_mouth(fill, inside, logit, kept)
    x0, y0 = (TEETH_XYXY[i] - LOOK_XYXY[i] for i in range(2))
    hole = (..., slice(y0 + 20, y0 + 30), slice(x0 + 50, x0 + 60))
    assert torch.equal(both[hole], inside[..., 20:30, 50:60])
    rest = torch.ones_like(fill, dtype=torch.bool)
    rest[hole] = False
    assert torch.equal(both[rest], fill[rest])
    both.sum().backward()
    assert logit.grad is None and inside.grad is not None and inside.grad.any()


def test_hole_right_beside_the_inside_of_a_mouth_is_inside_and_one_elsewhere_is_not() -> None:
    fill, inside = torch.rand(1, 3, 192, 176), torch.rand(1, 3, 88, 104)
    logit, kept = torch.full((1, 1, 88, 104), -40.0), torch.full((1, 1, 192, 176), 40.0)
    logit[..., 20:30, 50:60] = 40.0
    x0, y0 = (TEETH_XYXY[i] - LOOK_XYXY[i] for i in range(2))
    kept[..., y0 + 20 : y0 + 50, x0 + 50 : x0 + 60] = -40.0  # open farther down than was thought
    kept[..., y0 + 20, x0 + 10] = -40.0
    kept.requires_grad_()
    both = with_mouth(fill, inside, logit, kept)
    columns = slice(50, 60)
    shown = both[..., y0 : y0 + 88, x0 : x0 + 104]
    reach = 30 + BESIDE_PX
    assert torch.equal(shown[..., 20:reach, columns], inside[..., 20:reach, columns])
    rest = torch.ones(88, 104, dtype=torch.bool)
    rest[20:reach, columns] = False
    assert torch.equal(shown[..., rest], fill[..., y0 : y0 + 88, x0 : x0 + 104][..., rest])
    assert not both.requires_grad  # keep is learned from what can be fetched, not from teeth


def test_a_denture_of_another_shape_is_refused() -> None:
    layers, by_unit = two_bars()
    with pytest.raises(ValueError, match="layers has shape"):
        MouthLayers(replace(SMOKE, mouth_hidden=8)).wear(layers[:, :, 1:], by_unit)


@pytest.mark.parametrize("unit_channels", [0, 8])
def test_parity_torch_onnx_of_both_graphs(unit_channels: int, tmp_path: Path) -> None:
    """Static shapes, opset 18, standard operators, rank at most 4; the same numbers from ONNX
    Runtime.
    """
    import onnx
    import onnxruntime

    config = replace(
        SMOKE, unit_channels=unit_channels, mouth_hidden=unit_channels, mesh_features=unit_channels
    )
    net = shout(build(config)).eval()
    if unit_channels:
        net.generator.mouth.wear(*two_bars())
        torch.nn.init.normal_(net.generator.mouth.say.weight, std=0.1)
        torch.nn.init.normal_(net.generator.units_leave.weight, std=0.1)
        torch.nn.init.normal_(net.generator.hear_units.weight, std=0.1)
        torch.nn.init.normal_(net.generator.hear_mesh.weight, std=0.1)
        torch.nn.init.normal_(net.generator.mesh.by_unit, std=0.3)
        torch.nn.init.normal_(net.generator.mesh.shade_by_unit, std=0.1)
        net.generator.mesh.mean_xy.copy_(LANDMARKS[0])
        net.generator.mesh.px_per_unit.fill_(10.0)
        with torch.no_grad():
            net.generator.mesh.pose.bias.copy_(torch.tensor([10.0, 1, 2, 1, -10, 3]))
    for graph, spec in ((EncoderGraph(net), ENCODER_SPEC), (GeneratorGraph(net), GENERATOR_SPEC)):
        inputs = {i.name: torch.rand(i.shape) for i in spec.inputs}
        if "landmarks_xy" in inputs:
            inputs["landmarks_xy"] = LANDMARKS + torch.rand(LANDMARKS.shape)
        path = tmp_path / f"{spec.name}.onnx"
        names = [o.name for o in spec.outputs]
        # the exporter's dependencies warn about their own future
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph,
                tuple(inputs.values()),
                path,
                input_names=list(inputs),
                output_names=names,
                opset_version=18,
                dynamo=True,
                verbose=False,
            )
        model = onnx.shape_inference.infer_shapes(onnx.load(path))
        assert {node.domain for node in model.graph.node} == {""}
        ranks = [len(v.type.tensor_type.shape.dim) for v in model.graph.value_info]
        assert max(ranks) <= 4
        assert not [
            d for v in model.graph.value_info for d in v.type.tensor_type.shape.dim if d.dim_param
        ]
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        got = session.run(names, {name: value.numpy() for name, value in inputs.items()})
        with torch.no_grad():
            want = graph(*inputs.values())
        for name, a, b in zip(names, got, want, strict=True):
            np.testing.assert_allclose(
                a, b.numpy(), rtol=0, atol=PARITY_ATOL_FP32[name], err_msg=name
            )


def test_mix_tokens_absolute_relative_and_zero_gain() -> None:
    own, source, base = (torch.full((1, 2, 1), v) for v in (1.0, 5.0, 2.0))
    gains = torch.tensor([[1.0, 0.5]])
    absolute = mix_tokens(own, source, base, gains, torch.zeros(1, 1))
    assert absolute.flatten().tolist() == [5.0, 3.0]  # 1 + 1*(5-1), 1 + 0.5*(5-1)
    relative = mix_tokens(own, source, base, gains, torch.ones(1, 1))
    assert relative.flatten().tolist() == [4.0, 2.5]  # 1 + 1*(5-2), 1 + 0.5*(5-2)
    assert torch.equal(mix_tokens(own, source, base, gains * 0, torch.zeros(1, 1)), own)


def test_au_head_reads_its_own_token_only(net: RtNet) -> None:
    """The gradient of an AU's logit with respect to every other token's weights is zero."""
    encoded = net.encoder(look(torch.rand(1, 3, 32, 32)))
    encoded.au_logits[0, 5].sum().backward()
    grad = net.encoder.tokens.weight2.grad
    assert grad is not None
    touched = grad.abs().sum(dim=(1, 2)) > 0
    assert touched.nonzero().flatten().tolist() == [5]


@pytest.mark.parametrize("size_px", [64, 128, 256])
def test_wide_path_adds_to_every_token_and_starts_silent(size_px: int) -> None:
    torch.manual_seed(0)
    config = get_config("smoke").network
    wide = build(config).eval()
    picture = torch.rand(2, 3, size_px, size_px)
    before = wide.encoder(look(picture)).tokens
    plain = build(replace(config, token_wide_channels=0)).eval()
    plain.load_state_dict(
        {k: v for k, v in wide.state_dict().items() if ".wide_" not in k}, strict=True
    )
    torch.testing.assert_close(before, plain.encoder(look(picture)).tokens)
    torch.nn.init.normal_(wide.encoder.tokens.wide_out.weight)
    after = wide.encoder(look(picture)).tokens
    assert ((after - before).abs().amax(dim=(0, 2)) > 0).all()
    # it tells places apart: the mirrored picture has other tokens
    change = (
        wide.encoder(look(picture.flip(3))).tokens - plain.encoder(look(picture.flip(3))).tokens
    )
    assert (change - (after - before)).abs().max() > 1e-3


def test_label_tokens_are_inverted_exactly(net: RtNet) -> None:
    aus_lr = torch.rand(3, NUM_AUS, 2)
    tokens = net.label_tokens(aus_lr)
    torch.testing.assert_close(net.label_tokens.inverse(tokens), aus_lr, rtol=0, atol=1e-5)


def test_au_free_feature_does_not_train_the_stem(net: RtNet) -> None:
    encoded = net.encoder(look(torch.rand(1, 3, 32, 32)))
    net.generator(encoded.features, encoded.tokens, encoded.tokens).au_free.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in net.encoder.stem.parameters())
    assert net.generator.au_free.reduce[0].weight.grad is not None


@pytest.mark.parametrize("trains", [True, False])
def test_generation_trains_the_stem_only_where_asked(trains: bool) -> None:
    net = shout(build(replace(SMOKE, generation_trains_stem=trains)).eval())
    encoded = net.encoder(look(torch.rand(1, 3, 32, 32)))
    tokens = encoded.tokens.detach()
    net.generator(encoded.features, tokens, tokens).flow_xy.square().sum().backward()
    grads = [p.grad for p in net.encoder.stem.down128.parameters()]
    assert any(g is not None and bool(g.any()) for g in grads) == trains


def test_linear_part_moves_with_the_tokens_change_and_is_silent_without(net: RtNet) -> None:
    torch.nn.init.zeros_(net.generator.head_smooth.weight)
    torch.nn.init.normal_(net.generator.basis.weight)
    with torch.no_grad():
        encoded = net.encoder(look(torch.rand(1, 3, 64, 64)))
        own, features = encoded.tokens, encoded.features
        change = torch.randn_like(own) * 0.1
        flows = [
            net.generator(features, own, own + factor * change).flow_raw for factor in (0, 1, 2)
        ]
    assert not flows[0].any()
    assert flows[1].any()
    torch.testing.assert_close(flows[2], 2 * flows[1], atol=1e-4, rtol=1e-4)


def with_fields() -> RtNet:
    return build(replace(SMOKE, unit_channels=8)).eval()


def test_fields_of_units_move_by_the_change_of_intensities() -> None:
    """Flow is less the sum of each unit's field times its change, as the fields are given out."""
    net = with_fields()
    generator = net.generator
    torch.nn.init.normal_(generator.units_leave.weight)
    x = torch.randn(2, SMOKE.decoder_channels[2], 48, 44)
    own, wanted = torch.rand(2, 2, NUM_AUS, 2)
    change = net.label_tokens(wanted) - net.label_tokens(own)
    with torch.no_grad():
        moved, fields = generator._units(x, change)
        assert moved.shape == (2, 3, 48, 44) and fields.shape == (2, 2 * NUM_AUS, 3, 48, 44)
        assert not generator._units(x, 0 * change)[0].any()
        torch.testing.assert_close(generator._units(x, 0.5 * change)[0], 0.5 * moved)
        want = -(fields * (wanted - own).reshape(2, -1, 1, 1, 1)).sum(1)
        torch.testing.assert_close(moved, want, atol=1e-3, rtol=1e-3)
        with torch.autocast("cpu", torch.bfloat16):  # which is for the pictures alone
            half, _ = generator._units(x, change)
        assert half.dtype == torch.float32
        assert (half - moved).abs().max() < 0.02 * moved.abs().max()
        # a token's numbers that say nothing of intensities move nothing
        back = net.label_tokens.inverse(change + net.label_tokens.bias)
        silent = change - torch.einsum("nks,ksd->nkd", back, net.label_tokens.weight)
        assert generator._units(x, silent)[0].abs().max() < 1e-3 * moved.abs().max()


def test_fields_of_units_reach_the_answer_and_start_silent() -> None:
    net = with_fields()
    features = net.encoder(look(torch.rand(1, 3, 64, 64))).features
    own, mixed = torch.randn(1, NUM_AUS, 16), torch.randn(1, NUM_AUS, 16)
    with torch.no_grad():
        assert not net.generator.units_leave.weight.any()
        said = net.generator(features, own, mixed)
        assert said.unit_fields_raw is not None and not said.unit_fields_raw.any()
        net.generator.units_leave.weight.normal_()
        net.generator.hear_units.weight.normal_()
        assert not torch.allclose(said.flow_raw, net.generator(features, own, mixed).flow_raw)
        torch.testing.assert_close(
            net.generator(features, own, own).flow_raw,
            _without_fields(net)(features, own, own).flow_raw,
        )


def _without_fields(net: RtNet) -> torch.nn.Module:
    plain = build(replace(SMOKE, unit_channels=0)).eval()
    own = plain.state_dict()
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if k in own})
    return plain.generator


def test_look_is_the_face_at_full_size_whatever_the_pictures_size() -> None:
    x0, y0, x1, y1 = LOOK_XYXY
    whole = torch.rand(1, 3, CROP_SIZE_PX, CROP_SIZE_PX)
    assert torch.equal(look(whole), whole[:, :, y0:y1, x0:x1])
    # half a picture's size: scaled up, so a ramp stays the same ramp
    ramp = torch.linspace(0, 1, CROP_SIZE_PX).expand(1, 3, CROP_SIZE_PX, CROP_SIZE_PX)
    half = torch.nn.functional.avg_pool2d(ramp, 2)
    torch.testing.assert_close(look(half), look(ramp), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("side", "more"), [(64, 2), (128, 0), (CROP_SIZE_PX, 0)])
def test_cut_look_is_the_same_part_of_every_size(side: int, more: int) -> None:
    centres = (torch.arange(side) + 0.5) * CROP_SIZE_PX / side
    part = cut_look(torch.stack(torch.meshgrid(centres, centres, indexing="xy"))[None])
    x0, y0, x1, y1 = LOOK_XYXY
    pixel = CROP_SIZE_PX / side
    x0, x1 = x0 - more * pixel, x1 + more * pixel
    assert part.shape[2:] == ((y1 - y0) / pixel, (x1 - x0) / pixel)
    assert part.shape[2] % 8 == part.shape[3] % 8 == 0
    assert part[0, :, 0, 0].tolist() == [x0 + pixel / 2, y0 + pixel / 2]
    assert part[0, :, -1, -1].tolist() == [x1 - pixel / 2, y1 - pixel / 2]


def test_instructions_fade_out_at_the_looks_edges_and_leave_the_rest_alone(net: RtNet) -> None:
    shout(net)
    with torch.no_grad():
        encoded = net.encoder(look(torch.rand(1, 3, CROP_SIZE_PX, CROP_SIZE_PX)))
        said = net.generator(encoded.features, encoded.tokens, encoded.tokens * 2)
    x0, y0, x1, y1 = LOOK_XYXY
    inside = torch.zeros(1, 1, CROP_SIZE_PX, CROP_SIZE_PX, dtype=torch.bool)
    inside[:, :, y0:y1, x0:x1] = True
    assert not said.flow_xy[~inside.expand_as(said.flow_xy)].any()
    assert (said.keep[~inside] == 1).all()
    assert (said.shade[~inside] == 1).all()
    assert said.flow_xy[..., y0 + 40, x0 + 40 : x1 - 40].any()
    assert (said.keep[..., y0 + 40, x0 + 40 : x1 - 40] < 1).any()
    # no seam: within the last pixels what is asked for is a small part of what is asked inside
    edge = said.flow_raw[..., y0 + 1, x0:x1].abs().mean()
    assert edge < 0.05 * said.flow_raw[..., y0 + 20, x0:x1].abs().mean()


def test_firm_shrink_is_zero_then_exact() -> None:
    x = torch.tensor([-1.0, -0.15, -0.1, -0.05, 0.0, 0.1, 0.15, 0.2, 3.0])
    want = torch.tensor([-1.0, -0.075, 0.0, 0.0, 0.0, 0.0, 0.075, 0.2, 3.0])
    torch.testing.assert_close(firm_shrink(x, 0.1), want, atol=1e-6, rtol=0)
    assert firm_shrink(torch.tensor([0.0999, -0.0999]), 0.1).abs().max() == 0.0


def test_straight_through_keeps_the_gradient_alive_where_the_value_is_snapped() -> None:
    raw = torch.tensor([0.05], requires_grad=True)
    value = straight_through(firm_shrink(raw, 0.1), raw)
    assert value.item() == 0.0
    (grad,) = torch.autograd.grad(value, raw)
    assert grad.item() == 1.0


def test_small_answers_leave_the_picture_bit_for_bit(net: RtNet) -> None:
    """Flow, shade and 1 - keep below their dead zones are 0 exactly."""
    crop = torch.rand(1, 3, 64, 64)
    torch.nn.init.normal_(net.generator.head_sharp.weight, std=1e-3)
    torch.nn.init.normal_(net.generator.head_smooth.weight, std=1e-4)
    with torch.no_grad():
        encoded = net.encoder(look(crop))
        said = net.generator(encoded.features, encoded.tokens, encoded.tokens)
    assert bool(said.flow_raw.any())
    assert torch.equal(said.flow_xy, torch.zeros_like(said.flow_xy))
    assert torch.equal(said.keep, torch.ones_like(said.keep))
    assert torch.equal(said.shade, torch.ones_like(said.shade))


def test_answers_stay_in_range_and_keep_reaches_both_ends(net: RtNet) -> None:
    shout(net)
    with torch.no_grad():
        encoded = net.encoder(look(torch.rand(2, 3, 64, 64)))
        said = net.generator(encoded.features, encoded.tokens, encoded.tokens * 2)
    assert float(said.keep.min()) == 0.0
    assert float(said.keep.max()) == 1.0
    limit = 2**SMOKE.shade_limit_log2
    assert 1 / limit - 1e-5 <= float(said.shade.min()) < 1 < float(said.shade.max()) <= limit + 1e-5
    assert float(said.fill_rgb.min()) >= 0
    assert float(said.fill_rgb.max()) <= 1


def test_flow_is_in_pixels_of_the_crop_at_hand(net: RtNet) -> None:
    """A head that answers one unit everywhere says flow_scale_px at 256 px and half of it at
    128.
    """
    torch.nn.init.zeros_(net.generator.head_smooth.weight)
    torch.nn.init.constant_(net.generator.head_smooth.bias, 1.0)
    x0, y0, x1, y1 = (v // 2 for v in LOOK_XYXY)
    for size_px in (256, 128):
        with torch.no_grad():
            encoded = net.encoder(look(torch.rand(1, 3, size_px, size_px)))
            said = net.generator(encoded.features, encoded.tokens, encoded.tokens, size_px)
        f = size_px // 128
        inner = said.flow_xy[..., f * (y0 + 10) : f * (y1 - 10), f * (x0 + 10) : f * (x1 - 10)]
        want = torch.full_like(inner, SMOKE.flow_scale_px * size_px / 256)
        torch.testing.assert_close(inner, want, atol=1e-5, rtol=0)


def test_convention_fetch_reads_from_p_plus_flow() -> None:
    picture = torch.arange(12.0).reshape(1, 1, 3, 4)
    flow = torch.zeros(1, 2, 3, 4)
    flow[:, 0], flow[:, 1] = 1.0, -1.0  # to the right of p, and above
    got = fetch(picture, flow)
    want = torch.tensor([[1.0, 2.0, 3.0, 3.0], [1.0, 2.0, 3.0, 3.0], [5.0, 6.0, 7.0, 7.0]])
    torch.testing.assert_close(got[0, 0], want, atol=1e-5, rtol=0)


def test_compose_follows_the_formula_pixel_by_pixel() -> None:
    target = torch.tensor([0.2, 0.4, 0.6, 0.8])[None, None, None].expand(1, 3, 1, 4)
    flow = torch.zeros(1, 2, 1, 4)
    flow[0, 0, 0] = torch.tensor([1.0, 0.5, 0.0, 0.0])
    keep = torch.tensor([1.0, 1.0, 0.25, 1.0])[None, None, None]
    fill = torch.full((1, 3, 1, 4), 0.1)
    shade = torch.tensor([0.5, 1.0, 1.0, 2.0])[None, None, None]
    weight = torch.tensor([1.0, 1.0, 1.0, 0.5])[None, None, None]
    out = compose(target, flow, keep, fill, shade, weight)
    # 0.5*0.4; (0.4+0.6)/2; 0.25*0.6 + 0.75*0.1; half way from 0.8 to clamp(1.6)
    torch.testing.assert_close(
        out[0, 0, 0], torch.tensor([0.2, 0.5, 0.225, 0.9]), atol=1e-6, rtol=0
    )


def test_critics_take_cuts_of_128_and_256_px() -> None:
    critics = Critics(SMOKE).requires_grad_(False)
    for size_px in (128, 256):
        picture = torch.rand(2, 3, size_px, size_px)
        assert critics.face(picture).shape[:2] == (2, 1)
        for critic, box in ((critics.mouth, MOUTH_XYXY), (critics.eyes, EYES_XYXY)):
            part = cut(picture, box)
            assert part.shape[2] == round((box[3] - box[1]) * size_px)
            assert critic(part).shape[:2] == (2, 1)
    guess = critics.au(torch.rand(2, SMOKE.au_free_channels, 8, 8))
    assert guess.shape == (2, NUM_AUS)
    assert float(guess.min()) >= 0
    assert float(guess.max()) <= 1


def test_cut_takes_the_named_box() -> None:
    picture = torch.zeros(1, 3, 16, 16)
    picture[:, :, 8:12, 4:6] = 1
    assert torch.equal(cut(picture, (0.25, 0.5, 0.375, 0.75)), torch.ones(1, 3, 4, 2))


def test_exported_graphs_say_what_the_networks_say(net: RtNet) -> None:
    shout(net)
    picture = torch.rand(1, 3, CROP_SIZE_PX, CROP_SIZE_PX)
    tokens = torch.randn(1, NUM_AUS, SMOKE.token_dim)
    with torch.no_grad():
        encoded = net.encoder(look(picture))
        said = net.generator(encoded.features, encoded.tokens, tokens)
        answers = GeneratorGraph(net)(
            picture, LANDMARKS, tokens, tokens, torch.ones(1, NUM_AUS), torch.zeros(1, 1)
        )
    wanted = (said.flow_xy, said.keep, said.fill_rgb, said.shade, encoded.tokens, encoded.aus_lr)
    for answer, want in zip(answers, wanted, strict=True):
        torch.testing.assert_close(answer, want, atol=1e-3, rtol=1e-3)
