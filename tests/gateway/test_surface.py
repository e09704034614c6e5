"""Routes, parameters and JSON fields are promises to clients: they are compared with a golden file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.app import NODE_MODULES, create_app
from tests.gateway.golden import golden
from tests.gateway.stack import settings_for
from tests.gateway.surface import Surface, surface_of

PROMISED: Surface = golden("api")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Surface:
    """The surface of the application as it is built; nothing is connected for it."""
    settings = settings_for("postgresql://nowhere/none", "redis://nowhere", tmp_path_factory.mktemp("data"))
    app = create_app(settings, environ={}, plugins=[], node_modules=Path(NODE_MODULES))
    return surface_of(app.openapi())


def test_every_route_is_a_promised_one(served: Surface) -> None:
    assert set(served) == set(PROMISED)


@pytest.mark.parametrize("operation", PROMISED)
def test_a_route_takes_and_gives_what_was_promised(served: Surface, operation: str) -> None:
    assert served[operation] == PROMISED[operation]


def test_the_surface_does_not_depend_on_the_names_of_classes() -> None:
    def document(name: str) -> dict[str, object]:
        return {
            "paths": {
                "/x": {
                    "get": {
                        "responses": {
                            "200": {
                                "content": {
                                    "application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}
                                }
                            }
                        }
                    }
                }
            },
            "components": {"schemas": {name: {"type": "object", "properties": {"a": {"type": "string"}}}}},
        }

    assert surface_of(document("One")) == surface_of(document("Other"))
    assert surface_of(document("One"))["GET /x"]["answers"]["200"]["application/json"] == {"a?": "string"}
