"""Settings: three layers, one error, no secret shown; and the files that ship along."""

import os
import re
from configparser import ConfigParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

import tallybook.config as config_module
from tallybook.config import (
    AppConfig,
    DatabaseConfig,
    NotifyConfig,
    ServiceConfig,
    SmtpConfig,
    StorageConfig,
    WebConfig,
    read_settings,
    resource_path,
)
from tallybook.errors import ConfigError, ProcessingError

DATABASE = {"host": "db", "database": "sales", "username": "reader", "password": "hunter2"}
DEFAULTS = {
    "app_name": "tallybook",
    "debug": False,
    "log_level": "INFO",
    "api_endpoint": None,
    "api_key": None,
    "database": None,
    "storage": StorageConfig().model_dump(),
    "web": WebConfig().model_dump(),
    "service": ServiceConfig().model_dump(),
    "sources": {},
    "smtp": SmtpConfig().model_dump(),
    "notify": NotifyConfig().model_dump(),
    "worker_count": 4,
    "max_connections": 100,
    "reports_dir": Path("reports"),
    "runs_dir": Path("runs"),
    "ledger": None,
    "report_timeout_seconds": 600,
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder and an environment without our variables."""
    for name in [name for name in os.environ if name.upper().startswith("TALLYBOOK_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wrong(here: Path) -> str:
    """The message of the error that loading raises, with `.` for the current folder."""
    with pytest.raises(ConfigError) as error:
        AppConfig.load()
    return str(error.value).replace(str(here.resolve()), ".")


class TestDefaults:
    """Nothing must be configured."""

    def test_ledger(self, here, monkeypatch):
        """Runs are noted in the folder of the bundles, or where a setting says."""
        assert AppConfig.load().ledger_address == "runs/ledger.db"
        monkeypatch.setenv("TALLYBOOK_LEDGER", "postgresql://ada:hunter2@db/reports")
        loaded = AppConfig.load()
        assert loaded.ledger_address == "postgresql://ada:hunter2@db/reports"
        assert "hunter2" not in repr(loaded)

    def test_nothing_set(self, here):
        """An empty folder gives the defaults."""
        assert AppConfig.load().model_dump() == DEFAULTS

    def test_without_the_packaged_file(self, here, monkeypatch):
        """A package without its resources has the same defaults."""
        monkeypatch.setattr(config_module, "_resource_root", lambda: here)
        assert AppConfig.load().model_dump() == DEFAULTS

    def test_settings_ini_agrees(self, here, root, monkeypatch):
        """The shipped settings.ini holds every setting and every default, and nothing else."""
        text = (root / "settings.ini").read_text()
        shown = ConfigParser(interpolation=None)
        shown.read_string(re.sub(r"^# (?=\[|\w+ =)", "", text, flags=re.MULTILINE))

        parts = {
            "storage": StorageConfig,
            "web": WebConfig,
            "service": ServiceConfig,
            "smtp": SmtpConfig,
            "notify": NotifyConfig,
        }
        others = {"database", "sources", *parts}
        assert set(shown["tallybook"]) == set(AppConfig.model_fields) - others
        assert set(shown["tallybook.database"]) == set(DatabaseConfig.model_fields)
        assert shown["tallybook.database"]["port"] == "5432"
        for part, model in parts.items():
            told = set(model.model_fields) - {"tokens"}  # they have names of their own
            assert set(shown[f"tallybook.{part}"]) == told
            filled = {name: text for name, text in shown[f"tallybook.{part}"].items() if text}
            assert model.model_validate(filled) == model()
        for name, value in shown["tallybook"].items():
            assert (
                AppConfig.model_validate({name: value or None}).model_dump()[name]
                == (DEFAULTS[name])
            )

    def test_frozen(self, here):
        """Settings do not change under those who use them."""
        with pytest.raises(ValidationError, match="frozen"):
            AppConfig().worker_count = 2

    def test_every_setting_is_described(self):
        """Each setting says what it is for."""
        models = (AppConfig, DatabaseConfig, StorageConfig, WebConfig, SmtpConfig, NotifyConfig)
        fields = [field for model in models for field in model.model_fields.values()]
        assert all(field.description for field in fields)


class TestLayers:
    """settings.ini < .env < environment."""

    def test_a_change_counts_at_once(self, here, monkeypatch):
        """Settings that were read before are read again when any of their places has changed."""
        assert AppConfig.load() is AppConfig.load()
        (here / "settings.ini").write_text("[tallybook]\nworker_count = 5\n")
        assert AppConfig.load().worker_count == 5
        (here / ".env").write_text("TALLYBOOK_WORKER_COUNT=6\n")
        assert AppConfig.load().worker_count == 6
        monkeypatch.setenv("TALLYBOOK_WORKER_COUNT", "7")
        assert AppConfig.load().worker_count == 7
        monkeypatch.delenv("TALLYBOOK_WORKER_COUNT")
        (here / ".env").unlink()
        assert AppConfig.load().worker_count == 5

    def test_order(self, here, monkeypatch):
        """The later counts, setting by setting."""
        names = ["app_name", "log_level", "worker_count"]
        (here / "settings.ini").write_text(
            "[tallybook]\napp_name = ini\nlog_level = warning\nworker_count = 1\n"
        )
        (here / ".env").write_text("TALLYBOOK_LOG_LEVEL=error\nTALLYBOOK_WORKER_COUNT=2\n")
        monkeypatch.setenv("TALLYBOOK_WORKER_COUNT", "3")

        config = AppConfig.load()

        assert [getattr(config, name) for name in names] == ["ini", "ERROR", 3]

    def test_nested_settings_meet(self, here, monkeypatch):
        """One database from three places."""
        (here / "settings.ini").write_text(
            "[tallybook.database]\nhost = db\ndatabase = sales\nport = 1\npassword =\n"
        )
        (here / ".env").write_text("TALLYBOOK_DATABASE__PASSWORD='hunter2'\n")
        monkeypatch.setenv("TALLYBOOK_DATABASE__USERNAME", "reader")
        monkeypatch.setenv("tallybook_Database__Port", "2")

        assert AppConfig.load().database == DatabaseConfig(**DATABASE | {"port": 2})

    def test_json_in_a_variable(self, here, monkeypatch):
        """pydantic-settings' other spelling works too."""
        monkeypatch.setenv("TALLYBOOK_DATABASE", '{"host": "db", "database": "sales"}')
        monkeypatch.setenv("TALLYBOOK_DATABASE__USERNAME", "reader")
        monkeypatch.setenv("TALLYBOOK_DATABASE__PASSWORD", "hunter2")
        assert AppConfig.load().database == DatabaseConfig(**DATABASE)

    @pytest.mark.parametrize("name", ["TALLYBOOK_DEBUG", "tallybook_debug", "Tallybook_Debug"])
    def test_case_does_not_count(self, here, monkeypatch, name):
        """Neither in the environment nor in files."""
        monkeypatch.setenv(name, "yes")
        (here / ".env").write_text("tallybook_api_KEY=k\n")
        (here / "settings.ini").write_text("[Tallybook]\nWORKER_Count = 9\n")

        config = AppConfig.load()

        assert (config.debug, config.worker_count) == (True, 9)
        assert config.api_key == SecretStr("k")

    def test_empty_counts_as_not_set(self, here, monkeypatch):
        """An empty value changes nothing, wherever it is."""
        (here / "settings.ini").write_text(
            "[tallybook]\napi_key =\nworker_count =\n[tallybook.database]\nhost =\n"
        )
        (here / ".env").write_text("TALLYBOOK_APP_NAME=\n")
        monkeypatch.setenv("TALLYBOOK_DEBUG", "")
        assert AppConfig.load().model_dump() == DEFAULTS

    def test_the_folder_can_be_named(self, here, monkeypatch):
        """A job that works elsewhere finds its settings."""
        folder = here / "etc"
        folder.mkdir()
        (folder / "settings.ini").write_text("[tallybook]\nworker_count = 7\n")
        (folder / ".env").write_text("TALLYBOOK_APP_NAME=night\n")
        (here / "settings.ini").write_text("[tallybook]\nworker_count = 8\n")
        monkeypatch.setenv("TALLYBOOK_SETTINGS_DIR", str(folder))

        config = AppConfig.load()

        assert (config.worker_count, config.app_name) == (7, "night")

    def test_the_folder_must_exist(self, here, monkeypatch):
        """A wrong folder is not the same as no settings."""
        monkeypatch.setenv("TALLYBOOK_SETTINGS_DIR", "nowhere")
        assert wrong(here) == "TALLYBOOK_SETTINGS_DIR: there is no folder 'nowhere'"

    @given(workers=st.lists(st.none() | st.integers(1, 99), min_size=3, max_size=3))
    def test_the_strongest_layer_counts(self, tmp_path_factory, workers):
        """For every combination of layers that set something."""
        ini, dotenv, variable = workers
        folder = tmp_path_factory.mktemp("layers")
        if ini:
            (folder / "settings.ini").write_text(f"[tallybook]\nworker_count = {ini}\n")
        if dotenv:
            (folder / ".env").write_text(f"TALLYBOOK_WORKER_COUNT={dotenv}\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TALLYBOOK_SETTINGS_DIR", str(folder))
            if variable:
                patch.setenv("TALLYBOOK_WORKER_COUNT", str(variable))
            assert AppConfig.load().worker_count == (variable or dotenv or ini or 4)


class TestOneError:
    """Every wrong setting, where it came from, what was found, what is allowed."""

    def test_all_at_once(self, here, monkeypatch):
        """Three places, one message."""
        (here / "settings.ini").write_text("[tallybook]\nworker_count = 0\nlog_level = loud\n")
        (here / ".env").write_text("TALLYBOOK_DATABASE__PORT=70000\n")
        monkeypatch.setenv("TALLYBOOK_DEBUG", "perhaps")
        for name in ("host", "database", "username", "password"):
            monkeypatch.setenv(f"TALLYBOOK_DATABASE__{name.upper()}", DATABASE[name])

        assert wrong(here).splitlines() == [
            "4 settings are wrong:",
            "  debug: should be true or false, found 'perhaps' (TALLYBOOK_DEBUG, the environment)",
            "  log_level: should be 'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL', "
            "found 'loud' (log_level in [tallybook], ./settings.ini)",
            "  database.port: should be less than or equal to 65535, found '70000' "
            "(TALLYBOOK_DATABASE__PORT, ./.env)",
            "  worker_count: should be greater than 0, found '0' "
            "(worker_count in [tallybook], ./settings.ini)",
        ]

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("worker_count = many", "should be a whole number, greater than 0, found 'many'"),
            ("worker_count = 1.5", "should be a whole number, greater than 0, found '1.5'"),
            ("max_connections = -1", "should be greater than 0, found '-1'"),
            ("report_timeout_seconds = soon", "should be a number, greater than 0, found 'soon'"),
            ("report_timeout_seconds = inf", "should be a finite number, found 'inf'"),
            ("debug = 2", "should be true or false, found '2'"),
            (
                "api_endpoint = ftp://x",
                "should start with http:// or https:// and name a server, found 'ftp://x'",
            ),
            (
                "api_endpoint = http://",
                "should start with http:// or https:// and name a server, found 'http://'",
            ),
            ("app_name = " + "x" * 5, None),
        ],
    )
    def test_what_is_allowed(self, here, line, expected):
        """The kind of value, its bounds, and what was found instead."""
        (here / "settings.ini").write_text(f"[tallybook]\n{line}\n")
        name = line.partition(" ")[0]
        if expected is None:
            assert AppConfig.load().app_name == "xxxxx"
        else:
            assert wrong(here) == (
                f"1 setting is wrong:\n  {name}: {expected} ({name} in [tallybook], ./settings.ini)"
            )

    def test_the_strongest_place_is_named(self, here, monkeypatch):
        """The error names the line that counts, not the one it hides."""
        (here / "settings.ini").write_text("[tallybook]\nworker_count = 0\n")
        monkeypatch.setenv("tallybook_worker_count", "-1")
        assert "found '-1' (TALLYBOOK_WORKER_COUNT, the environment)" in wrong(here)

    def test_half_a_database(self, here):
        """What is missing is named, with a way to set it; a password does not go into the file."""
        (here / "settings.ini").write_text("[tallybook.database]\nhost = db\nusername = ada\n")
        assert wrong(here).splitlines() == [
            "2 settings are wrong:",
            "  database.database: is missing: set database in [tallybook.database] of "
            "settings.ini, or TALLYBOOK_DATABASE__DATABASE in .env or in the environment",
            "  database.password: is missing: set TALLYBOOK_DATABASE__PASSWORD in .env or in the "
            "environment",
        ]

    def test_attributes(self, here, monkeypatch):
        """The error carries what it says."""
        monkeypatch.setenv("TALLYBOOK_WORKER_COUNT", "0")
        with pytest.raises(ConfigError) as error:
            AppConfig.load()
        assert error.value.context["settings"] == [
            {
                "setting": "worker_count",
                "problem": "should be greater than 0, found '0'",
                "where": "TALLYBOOK_WORKER_COUNT, the environment",
            }
        ]

    def test_long_values_are_cut(self, here, monkeypatch):
        """A message stays readable."""
        monkeypatch.setenv("TALLYBOOK_WORKER_COUNT", "x" * 500)
        assert f"found '{'x' * 60}...'" in wrong(here)


class TestUnknownNames:
    """A slip of the finger is found, a stranger's variable is not ours."""

    def test_in_settings_ini(self, here):
        """Unknown settings and sections of ours, with the nearest name."""
        (here / "settings.ini").write_text(
            "[tallybook]\nworker_conut = 2\nzebra = 1\n[tallybook.databse]\nhost = db\n"
        )
        assert wrong(here).splitlines() == [
            "3 settings are wrong:",
            "  worker_conut: is unknown. Did you mean 'worker_count'? "
            "(worker_conut in [tallybook], ./settings.ini)",
            "  zebra: is unknown. (zebra in [tallybook], ./settings.ini)",
            "  databse: is unknown. Did you mean 'database'? ([tallybook.databse], ./settings.ini)",
        ]

    def test_others_sections(self, here):
        """Schedules, sources and other tools keep their sections."""
        (here / "settings.ini").write_text(
            "[DEFAULT]\nlib_name = x\n[schedule.morning]\ncron = 0 7 * * *\n[source.a]\nurl = %s\n"
        )
        assert AppConfig.load().model_dump() == DEFAULTS

    def test_in_dotenv(self, here):
        """In a file somebody wrote, every unknown name of ours is wrong; others may stay."""
        (here / ".env").write_text(
            "OTHER=1\nexport EMPTY\n# note\nTALLYBOOK_APIKEY=k\nTALLYBOOK_DATABASE__PROT=1\n"
        )
        message = wrong(here)
        assert "  apikey: is unknown. Did you mean 'api_key'? (TALLYBOOK_APIKEY, ./.env)" in message
        assert "  database.prot: is unknown. Did you mean 'port'? (" in message

    def test_in_the_environment(self, here, monkeypatch):
        """A near miss is wrong, at the top and further in."""
        monkeypatch.setenv("TALLYBOOK_WORKER_CONUT", "2")
        monkeypatch.setenv("Tallybook_Databse__Host", "db")
        assert wrong(here).splitlines() == [
            "2 settings are wrong:",
            "  worker_conut: is unknown. Did you mean 'worker_count'? "
            "(TALLYBOOK_WORKER_CONUT, the environment)",
            "  databse: is unknown. Did you mean 'database'? "
            "(Tallybook_Databse__Host, the environment)",
        ]

    @pytest.mark.parametrize(
        "name",
        [
            "TALLYBOOK_RUN_DIR",
            "TALLYBOOK_RUN_ID",
            "TALLYBOOK_PORT",
            "TALLYBOOK_PORT_80_TCP_ADDR",
            "TALLYBOOK_SERVICE_HOST",
            "TALLYBOOK_SERVICE_PORT_HTTP",
            "TALLYBOOK_",
            "MY_TALLYBOOK_DEBGU",
        ],
    )
    def test_strangers(self, here, monkeypatch, name):
        """Our own internal variables and those of Kubernetes do not stop anybody."""
        monkeypatch.setenv(name, "tcp://10.0.0.1:80")
        assert AppConfig.load().model_dump() == DEFAULTS

    def test_as_an_argument(self, here):
        """A misspelled argument is a mistake as well."""
        with pytest.raises(ValidationError, match="Extra inputs"):
            AppConfig(worker_conut=2)


class TestSecrets:
    """Never in a text, whatever goes wrong."""

    HIDDEN = "hunter2"

    @pytest.mark.parametrize(
        "line",
        [
            "database__password",
            "api_kye",
            "database",
            "database__passwrod",
            "debgu",
        ],
    )
    @pytest.mark.parametrize("place", ["environment", ".env"])
    def test_not_in_errors(self, here, monkeypatch, line, place):
        """Neither under its name nor under a misspelled one."""
        name = f"TALLYBOOK_{line.upper()}"
        if place == ".env":
            (here / ".env").write_text(f"{name}={self.HIDDEN}\n")
        else:
            monkeypatch.setenv(name, self.HIDDEN)
        with pytest.raises(ConfigError) as error:
            AppConfig.load()
        cause = error.value.__cause__
        assert self.HIDDEN not in f"{error.value} {error.value.context} {cause} {cause!r}"

    def test_not_in_an_address(self, here, monkeypatch):
        """An address with a password in it is refused without being repeated."""
        monkeypatch.setenv("TALLYBOOK_API_ENDPOINT", "https://ada:hunter2@example.org/x")
        message = wrong(here)
        assert "should hold no user or password; a key belongs into api_key (TALLYBOOK" in message
        assert "hunter2" not in message

    def test_not_in_reprs(self, here):
        """Printing settings shows stars."""
        config = AppConfig(api_key=self.HIDDEN, database=DATABASE)
        assert self.HIDDEN not in f"{config} {config!r} {config.model_dump_json()}"
        assert config.database.password.get_secret_value() == self.HIDDEN


class TestUnreadableFiles:
    """A file that is there but cannot be read is never taken for no file."""

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"worker_count = 2\n", "File contains no section headers."),
            (b"[tallybook]\ndebug = 1\ndebug = 0\n", "[line  3]: option 'debug' in section"),
            (b"[tallybook]\napp_name = Zo\xeb\n", "./settings.ini is not UTF-8 at byte 25"),
        ],
    )
    def test_settings_ini(self, here, content, expected):
        """The message names the file and the place."""
        (here / "settings.ini").write_bytes(content)
        message = wrong(here)
        assert " ".join(expected.split()) in message
        assert message.startswith("./settings.ini is not")
        assert "\n" not in message

    def test_a_folder(self, here):
        """A folder of that name is said to be one."""
        (here / "settings.ini").mkdir()
        assert wrong(here) == "./settings.ini cannot be read: Is a directory"

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"TALLYBOOK_DEBUG=1\n= nothing\nA='x\n", "./.env is not NAME=value in line 2, 3"),
            (b"TALLYBOOK_APP_NAME=Zo\xeb\n", "./.env is not UTF-8 at byte 21"),
        ],
    )
    def test_dotenv(self, here, content, expected):
        """A line that python-dotenv would skip without a word is an error."""
        (here / ".env").write_bytes(content)
        assert wrong(here) == expected

    def test_dotenv_without_permission(self, here, monkeypatch):
        """What may not be read is not the same as not there."""
        (here / ".env").write_text("TALLYBOOK_DEBUG=1\n")

        plain_open = Path.open

        def guarded(path: Path, *rest: object, **named: object) -> object:
            if path.name == ".env":
                raise PermissionError(13, "Permission denied")
            return plain_open(path, *rest, **named)

        monkeypatch.setattr(Path, "open", guarded)
        assert wrong(here) == "./.env cannot be read: Permission denied"

    def test_dotenv_as_a_folder(self, here):
        """A virtual environment called .env is no settings file."""
        (here / ".env").mkdir()
        assert AppConfig.load().model_dump() == DEFAULTS

    def test_byte_order_mark(self, here):
        """Windows' Notepad writes one; it does no harm."""
        (here / "settings.ini").write_bytes(b"\xef\xbb\xbf[tallybook]\ndebug = on\n")
        assert AppConfig.load().debug


class TestReadSettings:
    """The plain text of all sections, for the modules that own them."""

    def test_sections(self, here):
        """Names in lower case, values as they stand, per cent signs included."""
        path = here / "settings.ini"
        path.write_text("[schedule.Morning]\nCron = 0 7 * * *\nwhen = 50%\n\n[empty]\n")
        assert read_settings(path) == {
            "schedule.Morning": {"cron": "0 7 * * *", "when": "50%"},
            "empty": {},
        }

    def test_no_file(self, here):
        """No file, no settings."""
        assert read_settings(here / "settings.ini") == {}


class TestRequire:
    """Asked for by name, by the feature that needs it."""

    def test_set(self, here):
        """The value itself."""
        config = AppConfig(api_endpoint="https://example.org/labels", api_key="k")
        assert config.require("api_endpoint", feature="X") == "https://example.org/labels"
        assert config.require("api_key", feature="X").get_secret_value() == "k"

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            (
                "api_endpoint",
                "set api_endpoint in [tallybook] of settings.ini, or "
                "TALLYBOOK_API_ENDPOINT in .env or in the environment",
            ),
            ("api_key", "set TALLYBOOK_API_KEY in .env or in the environment"),
            (
                "database",
                "set each of TALLYBOOK_DATABASE__HOST, TALLYBOOK_DATABASE__DATABASE, "
                "TALLYBOOK_DATABASE__USERNAME, TALLYBOOK_DATABASE__PASSWORD in .env or in the "
                "environment",
            ),
        ],
    )
    def test_missing(self, here, name, expected):
        """The message says who needs it and what to write."""
        with pytest.raises(ConfigError) as error:
            AppConfig().require(name, feature="The look-up")
        assert str(error.value) == f"The look-up needs the setting {name!r}: {expected}"
        assert error.value.context == {"setting": name, "feature": "The look-up"}


class TestResources:
    """Files beside `pkg/` in a checkout, inside the package when installed."""

    def test_in_the_checkout(self, root):
        """The checkout's own files."""
        assert resource_path("settings.ini") == root / "settings.ini"
        assert resource_path("templates", "report") == root / "templates" / "report"

    def test_in_an_installed_package(self, tmp_path):
        """A package elsewhere carries its resources."""
        package = tmp_path / "site-packages" / "tallybook"
        assert config_module._resource_root(package) == package / "_resources"

    def test_a_folder_called_pkg_is_not_enough(self, tmp_path):
        """A checkout has a pyproject.toml."""
        package = tmp_path / "pkg" / "tallybook"
        package.mkdir(parents=True)
        assert config_module._resource_root(package) == package / "_resources"
        (tmp_path / "pyproject.toml").touch()
        assert config_module._resource_root(package) == tmp_path

    def test_missing(self):
        """What is not there is named."""
        with pytest.raises(ProcessingError, match=r"templates/nope is missing: there is no /"):
            resource_path("templates", "nope")
