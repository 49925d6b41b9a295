"""Fused content: a weighted mean over the modalities that an item has."""

import torch

from recsys_core.models.fusion import ContentFusion

TEXT = torch.tensor([[0.0, 0], [1, 0], [0, 1], [0, 0], [0, 0]])
IMAGE = torch.tensor([[0.0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0]])


def _fusion(**content: torch.Tensor) -> ContentFusion:
    torch.manual_seed(0)
    fusion = ContentFusion(content, 4)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter += torch.randn_like(parameter)
    return fusion


def test_a_single_modality_is_projected() -> None:
    fusion = _fusion(text=TEXT)
    torch.testing.assert_close(fusion(), fusion.projections[0](TEXT))
    assert len(fusion.gates) == 0


def test_a_missing_modality_has_no_say() -> None:
    fusion, text = _fusion(text=TEXT, image=IMAGE), ContentFusion({"text": TEXT}, 4)
    assert fusion.names == ["image", "text"]
    text.projections[0].load_state_dict(fusion.projections[1].state_dict())
    torch.testing.assert_close(fusion()[2], text()[2])
    assert not fusion()[[0, 4]].any(), "no content, no vector"


def test_an_item_with_both_lies_between_them() -> None:
    fusion = _fusion(text=TEXT, image=IMAGE)
    image, text = (
        layer(rows)[1] for layer, rows in zip(fusion.projections, (IMAGE, TEXT), strict=True)
    )
    share = ((fusion()[1] - text) / (image - text)).mean()
    assert 0 < share < 1
    torch.testing.assert_close(fusion()[1], share * image + (1 - share) * text)


def test_content_is_linear_in_gated_features() -> None:
    items = torch.tensor([3, 1, 4, 2])
    for fusion in (_fusion(text=TEXT, image=IMAGE), _fusion(text=TEXT)):
        features = fusion.gated_features(items)
        weights = torch.randn(4, features.shape[1])
        fusion.set_projections(weights)
        torch.testing.assert_close(fusion(items), features @ weights.T)


def test_the_gate_learns_which_modality_tells_more() -> None:
    """The target is a function of the image alone; text is noise."""
    torch.manual_seed(1)
    image, text = torch.randn(2, 200, 8)
    target = image @ torch.randn(8, 4)
    fusion = ContentFusion({"image": image, "text": text}, 4)
    optimizer = torch.optim.Adam(fusion.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (fusion() - target).square().mean().backward()
        optimizer.step()
    left = (fusion() - target).square().mean() / target.square().mean()
    assert left < 0.05


def test_features_are_no_weights_and_follow_the_rows_asked_for() -> None:
    fusion = _fusion(text=TEXT, image=IMAGE)
    assert not any("features" in name for name in fusion.state_dict())
    assert torch.equal(fusion.features["image"], IMAGE)
    items = torch.tensor([0, 3, 1])
    torch.testing.assert_close(fusion(items), fusion()[items])
    fusion.clear()
    assert not fusion().any()


def test_names_may_be_anything() -> None:
    fusion = ContentFusion({"clip.v2 image": IMAGE, "forward": TEXT}, 4)
    assert fusion.names == ["clip.v2 image", "forward"]
