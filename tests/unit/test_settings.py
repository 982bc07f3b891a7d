"""The settings file: what loads, and what is said, with line and fix, of what does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from config.load import load
from config.profiles import ProfileSettings
from config.settings import (
    ConditionSettings,
    NodeSettings,
    PeerSettings,
    RouteSettings,
    Settings,
    database_url,
    peers,
    routes,
)
from node.domain.errors import InvalidSettings
from node.domain.model import Qualification
from node.domain.peer import Peer
from node.domain.route import Condition, Operator, decide

EXAMPLE = Path(__file__).resolve().parents[2] / "config" / "node.example.yaml"

MINIMAL = """\
node: {ae_title: AINODE, host: 0.0.0.0, port: 11112, data_dir: var}
api: {host: 127.0.0.1, port: 8080}
assemble: {quiet_seconds: 10}
peers:
  CT1:  {ae_title: CT1, host: 10.0.0.5, receive: true}
  PACS: {ae_title: PACS, host: 10.0.0.9, port: 104, send: true}
routes:
  - name: chest-ct
    when: {Modality: CT, BodyPartExamined: {in: [CHEST, THORAX, LUNG]}}
    pipeline: lung_density_ct
    send_to: [PACS]
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def _write(text: str) -> Path:
        path = tmp_path / "node.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def refusal(path: Path | None, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(InvalidSettings) as caught:
        load(path, environ or {})
    return str(caught.value)


class TestWhatLoads:
    def test_no_file_gives_the_defaults(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert load(None, {}) == Settings()

    def test_the_documented_file_becomes_domain_types(self, write: Any) -> None:
        settings = load(write(MINIMAL), {})
        assert peers(settings) == {
            "CT1": Peer("CT1", "CT1", "10.0.0.5", receive=True),
            "PACS": Peer("PACS", "PACS", "10.0.0.9", 104, send=True),
        }
        (route,) = routes(settings)
        assert (route.name, route.pipeline, route.send_to) == ("chest-ct", "lung_density_ct", ("PACS",))
        assert route.when == (
            Condition("Modality", Operator.EQUALS, ("CT",)),
            Condition("BodyPartExamined", Operator.IN, ("CHEST", "THORAX", "LUNG")),
        )

    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            ("[CT, MR]", [(Operator.IN, ("CT", "MR"))]),
            ("{equals: CT}", [(Operator.EQUALS, ("CT",))]),
            ("{exists: yes}", [(Operator.EXISTS, ("true",))]),
            ("{exists: false}", [(Operator.EXISTS, ("false",))]),
            ("{matches: '^c.$'}", [(Operator.MATCHES, ("^c.$",))]),
            ("{not_in: [SR]}", [(Operator.NOT_IN, ("SR",))]),
            ("{min: 0.5, max: 3}", [(Operator.MIN, ("0.5",)), (Operator.MAX, ("3",))]),
        ],
    )
    def test_operators(self, write: Any, written: str, expected: list[tuple[Operator, tuple[str, ...]]]) -> None:
        text = f"routes: [{{name: r, pipeline: p, when: {{Modality: {written}}}}}]"
        (route,) = routes(load(write(text), {}))
        assert [(c.operator, c.operands) for c in route.when] == expected

    def test_scalars_stay_what_was_written(self, write: Any) -> None:
        text = "routes: [{name: r, pipeline: p, when: {PatientID: 007, CountryOfResidence: NO, StudyDate: 2024-01-05}}]"
        (route,) = routes(load(write(text), {}))
        assert [c.operands for c in route.when] == [("007",), ("NO",), ("2024-01-05",)]
        assert decide(
            route, {"1.2": {"PatientID": ["007"], "CountryOfResidence": ["no"], "StudyDate": ["2024-01-05"]}}
        )[0]

    def test_a_section_with_all_keys_commented_out_is_the_default(self, write: Any) -> None:
        assert load(write("work:\n  # device: cpu\npeers:\n"), {}) == Settings()

    def test_the_database_lies_in_the_data_directory_unless_configured(self, write: Any) -> None:
        assert database_url(load(write("node: {data_dir: /data}"), {})) == "sqlite:////data/ainode.db"
        url = "postgresql+psycopg://ainode:secret@db/ainode"
        settings = load(write(f"database: {{url: '{url}'}}"), {})
        assert database_url(settings) == url
        assert "secret" not in repr(settings)

    def test_the_tree_is_frozen(self) -> None:
        with pytest.raises(ValidationError):
            Settings().node.port = 1

    def test_it_can_be_built_without_a_file(self) -> None:
        settings = Settings(
            node=NodeSettings(port=0),
            peers={"PACS": PeerSettings(ae_title="PACS", host="127.0.0.1", port=104, send=True)},
            routes=(RouteSettings(name="r", pipeline="p", when={"Modality": ConditionSettings(equals="CT")}),),
        )
        assert routes(settings)[0].when == (Condition("Modality", Operator.EQUALS, ("CT",)),)


class TestWhichFile:
    def test_the_variable_names_it(self, write: Any) -> None:
        assert load(None, {"AINODE_CONFIG": str(write("node: {port: 4711}"))}).node.port == 4711

    def test_the_argument_goes_before_the_variable(self, write: Any) -> None:
        assert load(write("node: {port: 4711}"), {"AINODE_CONFIG": "/nowhere.yaml"}).node.port == 4711

    def test_node_yaml_of_the_working_directory(self, write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(write("node: {port: 4711}").parent)
        assert load(None, {}).node.port == 4711

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        assert "No such file" in refusal(tmp_path / "absent.yaml")


class TestWhatIsRefused:
    def test_one_problem_reads_as_one_line(self, write: Any) -> None:
        path = write("node:\n  port: 11112\nassemble:\n  quiet_secs: 5\n")
        assert refusal(path) == f"{path} line 4: assemble.quiet_secs: unknown key. Did you mean quiet_seconds?"

    @pytest.mark.parametrize(
        ("text", "line", "key", "said"),
        [
            ("nodes: {}", 1, "nodes", "Did you mean node?"),
            ("\napi:\n  prot: 1", 3, "api.prot", "Did you mean port?"),
            ("node:\n  port: 70000", 2, "node.port", "'70000'"),
            ("node:\n  port: many", 2, "node.port", "Write a whole number"),
            ("node:\n  port:", 2, "node.port", "valid integer"),
            ("node:\n  accept_unknown_peers: perhaps", 2, "node.accept_unknown_peers", "true or false"),
            ("node:\n  ae_title: THIS_TITLE_IS_TOO_LONG", 2, "node.ae_title", "1 to 16"),
            ("assemble:\n  quiet_seconds: 0", 2, "assemble.quiet_seconds", "greater than 0"),
            ("assemble:\n  quiet_seconds: .inf", 2, "assemble.quiet_seconds", "Write a number"),
            ("assemble:\n  quiet_seconds: inf", 2, "assemble.quiet_seconds", "finite"),
            ("api: 8080", 1, "api", "Write keys below it: host, port, token"),
            ("peers: [PACS]", 1, "peers", "Write keys below it: NAME"),
            ("peers:\n  PACS: PACS", 2, "peers.PACS", "Write keys below it: ae_title, host"),
            ("routes:\n- {name: r, pipeline: p,\n   when: CT}", 3, "routes[0].when", "Write keys below it: NAME"),
            ("routes: {name: r}", 1, "routes", "Write a list"),
            ("? [a, b]\n: 1", 1, "?", "unknown key"),
            ("node:\n  port: 1\n  port: 2", 3, "node.port", "is there since line 2"),
            ("peers:\n  A: {ae_title: A, host: h}\n  A: {ae_title: B, host: h}", 3, "peers.A", "since line 2"),
            ("peers:\n  PACS: {ae_title: PACS, host: h, send: true}", 2, "peers.PACS", "Add the port"),
            ("peers:\n  PACS: {ae_title: PACS, host: h, query: true}", 2, "peers.PACS", "Add the port"),
            ("peers:\n  PACS: {ae_title: PACS, port: 104}", 2, "peers.PACS.host", "Add it"),
            ("peers:\n  'A@B': {ae_title: A, host: h}", 2, "peers.A@B", "pattern"),
            ("work:\n  device: gpu", 2, "work.device[0]", "'gpu'"),
            ("results:\n  qualification: SERVICE", 2, "results.qualification", "one of RESEARCH, PRODUCT"),
            ("log:\n  level: loud", 2, "log.level", "one of debug, info, warning, error"),
            ("deliver:\n  retry_max_seconds: 1", 2, "deliver.retry_max_seconds", "less than retry_seconds"),
            ("database:\n  url: mysql://x", 2, "database.url", "Begin with sqlite"),
            ("models:\n  hub: http://hub.example", 2, "models.hub", "Write https://HOST"),
            ("models:\n  mlflow_uri: https://u:hunter2@h", 2, "models.mlflow_uri", "a token has a key of its own"),
            ("models:\n  mlflow_user: node", 1, "models.mlflow_token", "Set it to the password"),
        ],
    )
    def test_with_line_key_and_fix(self, write: Any, text: str, line: int, key: str, said: str) -> None:
        message = refusal(write(text))
        assert f"node.yaml line {line}: {key}: " in message
        assert said in message

    @pytest.mark.parametrize(
        ("condition", "key", "said"),
        [
            ("Modalitty: CT", ".Modalitty", "Did you mean Modality?"),
            ("PixelData: x", ".PixelData", "cannot be compared"),
            ("RequestAttributesSequence: {exists: true}", ".RequestAttributesSequence", "VR SQ"),
            ("SeriesDescription: {matches: '('}", ".SeriesDescription.matches", "no regular expression"),
            ("KVP: {min: high}", ".KVP.min", "Write a number"),
            ("KVP: {min: nan}", ".KVP.min", "Write a number"),
            ("KVP: {mni: 1}", ".KVP.mni", "The keys here are equals, in, not_in, matches, exists, min, max"),
            ("Modality: {}", ".Modality", "the condition is empty"),
            ("Modality: []", ".Modality.in", "at least 1"),
        ],
    )
    def test_conditions(self, write: Any, condition: str, key: str, said: str) -> None:
        message = refusal(write(f"routes:\n- name: r\n  pipeline: p\n  when:\n    {condition}\n"))
        assert f"line 5: routes[0].when{key}: " in message
        assert said in message

    def test_routes_and_peers_must_agree(self, write: Any) -> None:
        message = refusal(
            write(
                "peers:\n"
                "  PACS: {ae_title: PACS, host: h, port: 104, send: true}\n"
                "  CT1: {ae_title: CT1, host: h, receive: true}\n"
                "routes:\n"
                "  - {name: a, pipeline: p, send_to: [PACS]}\n"
                "  - {name: a, pipeline: p, send_to: [PACSS]}\n"
                "  - name: b\n"
                "    pipeline: p\n"
                "    send_to:\n"
                "      - CT1\n"
            )
        )
        assert message.startswith("settings: 3 problems")
        assert "line 6: routes[1].name: a second route a. Give every route a name of its own" in message
        assert "line 6: routes[1].send_to[0]: no peer is named PACSS. Did you mean PACS?" in message
        assert (
            "line 10: routes[2].send_to[0]: peer CT1 is not one that we send to. Set peers.CT1.send to true" in message
        )

    @pytest.mark.parametrize(
        "text", ["- a\n- b", "just words", "node: [\n", "a: b: c", "node: {}\n---\nnode: {}", "a: &a [*a]"]
    )
    def test_what_is_no_mapping(self, write: Any, text: str) -> None:
        assert "node.yaml" in refusal(write(text))

    def test_what_is_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "node.yaml"
        path.write_bytes(b"node: {name: \xff}")
        assert "is not UTF-8" in refusal(path)

    def test_a_secret_is_never_repeated(self, write: Any) -> None:
        assert "hunter2" not in refusal(write("api: {token: hunter2}\ndatabase: {url: 'mysql://u:hunter2@h'}"))


class TestEnvironment:
    def test_overrides_the_file(self, write: Any) -> None:
        path = write(MINIMAL)
        environ = {
            "AINODE_API__PORT": "9000",
            "AINODE_PEERS__PACS__HOST": "pacs",
            "AINODE_NODE__ACCEPT_UNKNOWN_PEERS": "true",
            "AINODE_LOG__LEVEL": "",
            "AINODE_TEST_REQUIRE_PEERS": "1",
            "PATH": "/bin",
        }
        settings = load(path, environ)
        assert settings.api.port == 9000
        assert settings.api.host == "127.0.0.1"
        assert settings.peers["PACS"].host == "pacs"
        assert settings.node.accept_unknown_peers is True
        assert settings.log.level == "info"

    def test_a_peer_keeps_the_spelling_of_the_file(self, write: Any) -> None:
        path = write("peers: {Pacs-1: {ae_title: PACS, host: h}}")
        assert load(path, {"AINODE_PEERS__PACS-1__HOST": "pacs"}).peers["Pacs-1"].host == "pacs"

    def test_a_whole_peer_can_come_from_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        environ = {"AINODE_PEERS__PACS__AE_TITLE": "PACS", "AINODE_PEERS__PACS__HOST": "pacs"}
        assert peers(load(None, environ)) == {"PACS": Peer("PACS", "PACS", "pacs")}

    @pytest.mark.parametrize(
        ("variable", "said"),
        [
            ("AINODE_API_PORT", "Did you mean AINODE_API__PORT?"),
            ("AINODE_API__PROT", "Did you mean AINODE_API__PORT?"),
            ("AINODE_PEERS__PACS__HOTS", "Did you mean AINODE_PEERS__PACS__HOST?"),
            ("AINODE_ROUTES", "Nest with two underscores"),
            ("AINODE_API", "AINODE_API__PORT"),
            ("AINODE_CONFG", "Did you mean AINODE_CONFIG?"),
        ],
    )
    def test_an_unknown_variable_is_refused(self, write: Any, variable: str, said: str) -> None:
        message = refusal(write(MINIMAL), {variable: "1"})
        assert message.startswith(f"{variable}: unknown variable. ")
        assert said in message

    def test_a_wrong_value_names_the_variable(self, write: Any) -> None:
        message = refusal(write(MINIMAL), {"AINODE_API__PORT": "many"})
        assert message.startswith("AINODE_API__PORT: api.port: 'many': ")

    def test_problems_of_both_are_listed_together(self, write: Any) -> None:
        message = refusal(write("api:\n  prot: 1\n"), {"AINODE_LOG__LEVLE": "info"})
        assert "AINODE_LOG__LEVLE: unknown variable" in message
        assert "line 2: api.prot: unknown key" in message


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _leaves(info.annotation, f"{prefix}{name}.")
        elif name not in ("peers", "profiles", "routes"):
            yield f"{prefix}{info.alias or name}"


class TestExample:
    def test_it_shows_every_key(self) -> None:
        tree = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
        shown = {f"{section}.{key}" for section, keys in tree.items() if isinstance(keys, dict) for key in keys}
        assert set(_leaves(Settings)) <= shown
        assert set(_leaves(PeerSettings)) == {key for peer in tree["peers"].values() for key in peer}
        assert set(_leaves(ProfileSettings)) == {key for profile in tree["profiles"].values() for key in profile}
        assert {"name", "when", "pipeline", "send_to", "priority"} == set(RouteSettings.model_fields)
        assert set(RouteSettings.model_fields) == {key for route in tree["routes"] for key in route}
        conditions = [c for route in tree["routes"] for c in route["when"].values()]
        operators = {operator for c in conditions if isinstance(c, dict) for operator in c}
        assert operators | {"equals"} == set(_leaves(ConditionSettings))

    def test_it_loads_and_shows_the_defaults(self) -> None:
        settings = load(EXAMPLE, {})
        assert settings.peers
        assert settings.routes
        assert settings.model_copy(update={"peers": {}, "profiles": {}, "routes": ()}) == Settings()
        assert settings.results.qualification is Qualification.RESEARCH
