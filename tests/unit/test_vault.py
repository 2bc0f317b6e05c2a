"""Secrets: references are told from secrets, looked up where they belong, and never shown."""

import os
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from tallybook.config import AppConfig
from tallybook.errors import ConfigError, ParameterError
from tallybook.vault import Secret, known_secrets, secret

HIDDEN = "correct horse battery staple"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and an environment without anybody's keys."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "PG"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestReference:
    class Model(BaseModel):
        token: Secret

    @pytest.mark.parametrize("reference", ["secret:A", "secret:sales_token", "secret:S3_KEY"])
    def test_a_name_is_one(self, reference):
        """It stays what it is."""
        assert self.Model(token=reference).token == reference

    @pytest.mark.parametrize(
        "given",
        [HIDDEN, "", "secret:", "secret: A", "secret:A ", "secret:A\n", "secret:1", "SECRET:A", 7],
    )
    def test_nothing_else_is_and_it_is_not_repeated(self, here, given):
        """It may be the secret itself, given by mistake."""
        with pytest.raises(ValidationError, match="never by itself") as refused:
            self.Model(token=given)
        assert refused.value.errors()[0]["msg"].startswith("a secret is given by its name")
        with pytest.raises(ParameterError, match="never by itself") as error:
            secret(given)
        assert HIDDEN not in str(error.value)
        assert error.value.exit_code == 2


class TestLookUp:
    @pytest.mark.parametrize("variable", ["TALLYBOOK_SECRET_SALES", "tallybook_secret_sales"])
    def test_the_environment(self, here, monkeypatch, variable):
        """In any case of letters."""
        monkeypatch.setenv(variable, HIDDEN)
        assert secret("secret:SALES") == secret("secret:sales") == HIDDEN

    def test_the_environment_counts_more_than_dotenv(self, here, monkeypatch):
        """As for every setting; a variable that is empty is not set."""
        (here / ".env").write_text(f"TALLYBOOK_SECRET_SALES='{HIDDEN}'\n")
        assert secret("secret:SALES") == HIDDEN
        monkeypatch.setenv("TALLYBOOK_SECRET_SALES", "")
        assert secret("secret:SALES") == HIDDEN
        monkeypatch.setenv("TALLYBOOK_SECRET_SALES", "other")
        assert secret("secret:SALES") == "other"

    def test_the_settings_of_another_folder(self, here, monkeypatch):
        """A kernel works elsewhere."""
        (here / "site").mkdir()
        (here / "site" / ".env").write_text(f"TALLYBOOK_SECRET_SALES={HIDDEN}\n")
        monkeypatch.setenv("TALLYBOOK_SETTINGS_DIR", str(here / "site"))
        assert secret("secret:SALES") == HIDDEN

    def test_a_missing_one_names_both_places(self, here, monkeypatch):
        """And the nearest name, but no value."""
        monkeypatch.setenv("TALLYBOOK_SECRET_SALES", HIDDEN)
        with pytest.raises(ConfigError) as error:
            secret("secret:SALE")
        assert str(error.value) == (
            "there is no secret SALE: set TALLYBOOK_SECRET_SALE in the environment or in "
            f"{here.resolve() / '.env'}. Did you mean 'SALES'?"
        )
        assert error.value.context["variable"] == "TALLYBOOK_SECRET_SALE"

    def test_a_broken_dotenv_is_told(self, here):
        """By line, without what stands there."""
        (here / ".env").write_text(f"= {HIDDEN}\n")
        with pytest.raises(ConfigError, match=r"not NAME=value in line 1") as error:
            secret("secret:SALES")
        assert HIDDEN not in str(error.value)


class TestKnown:
    def test_nothing_is_set(self, here):
        """Then there is nothing to look for."""
        assert known_secrets() == {}

    def test_named_tokens(self, here, monkeypatch):
        """A token of the service is looked for without the scope in front of it."""
        monkeypatch.setenv("TALLYBOOK_SERVICE__TOKENS__CI", "run:" + "x" * 40)
        assert known_secrets() == {"service.tokens.ci": "x" * 40}

    def test_every_secret_is_there(self, here, monkeypatch):
        """Those asked for by name, the settings, the customary variables, and no other setting."""
        (here / ".env").write_text(
            "TALLYBOOK_SECRET_SALES=a1\nTALLYBOOK_SECRET_STOCK=b2\nTALLYBOOK_API_KEY=c3\n"
        )
        for name, value in {
            "TALLYBOOK_SECRET_SALES": "d4",
            "TALLYBOOK_SECRET_STOCK": "b2",
            "TALLYBOOK_APP_NAME": "shown",
            "TALLYBOOK_WEB__TOKEN": "e5",
            "TALLYBOOK_STORAGE__SECRET_ACCESS_KEY": "f6",
            "TALLYBOOK_DATABASE__HOST": "shown",
            "TALLYBOOK_DATABASE__DATABASE": "shown",
            "TALLYBOOK_DATABASE__USERNAME": "shown",
            "TALLYBOOK_DATABASE__PASSWORD": "g7",
            "AWS_SESSION_TOKEN": "h8",
            "PGPASSWORD": "",
        }.items():
            monkeypatch.setenv(name, value)
        assert known_secrets() == {
            "secret:SALES": "d4",
            "secret:STOCK": "b2",
            "secret:SALES in .env": "a1",
            "api_key": "c3",
            "database.password": "g7",
            "storage.secret_access_key": "f6",
            "web.token": "e5",
            "AWS_SESSION_TOKEN": "h8",
        }


class TestSettings:
    """Secrets asked for by name are no settings, and settings.ini is no place for them."""

    def test_they_are_no_unknown_settings(self, here, monkeypatch):
        """Neither in .env nor in the environment, whatever they are called."""
        (here / ".env").write_text("TALLYBOOK_SECRET_SALES=a1\ntallybook_secret_b=x\n")
        monkeypatch.setenv("TALLYBOOK_SECRET_API_KEY", HIDDEN)
        assert AppConfig.load().api_key is None

    @pytest.mark.parametrize("section", ["secrets", "Secret"])
    def test_a_section_for_them_is_refused(self, here, section):
        """Without showing what stands there."""
        (here / "settings.ini").write_text(f"[{section}]\nsales = {HIDDEN}\n")
        with pytest.raises(ConfigError, match="TALLYBOOK_SECRET_NAME") as error:
            AppConfig.load()
        assert HIDDEN not in str(error.value)
