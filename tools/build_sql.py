"""Write sql/: what deploy/, revert/ and verify/ say, for psql alone and as an extension.

    tools/build_sql.py [--check]
    tools/build_sql.py --schema NAME

app_jobs.sql, app_jobs_verify.sql and app_jobs_uninstall.sql are for psql; the first writes Sqitch's
registry as well, so that Sqitch and `app-jobs migrate` go on from there. Of the extension there is
a script per release (a tag in sqitch.plan, or VERSION), and one each way between two neighbours.
--check writes nothing and exits with 1 if a file is stale. --schema writes the files for psql under
another name, into build/NAME/sql; the extension takes its name from CREATE EXTENSION … SCHEMA.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from app_jobs import _render, migrate
from app_jobs._plan import Change, Plan, in_force

ROOT = Path(__file__).resolve().parent.parent

# Tables into which deploy scripts put rows, and which of their rows pg_dump is to take along when
# they belong to an extension: all but those, for CREATE EXTENSION puts them there again.
ROWS_TO_DUMP = {"error_codes": None, "open_slots": "where slot <> 1"}

# The name of the schema: CREATE EXTENSION without SCHEMA takes the first one in the search path,
# which is everybody's, so that means a schema of our own.
SCHEMA = "case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end"


def build(plan: Plan, version: str) -> dict[str, str]:
    """All files by name."""
    files = {
        "app_jobs.control": control(version),
        **for_psql(plan, version),
    }
    releases = releases_of(plan, version)
    for name, changes in releases.items():
        files[f"app_jobs--{name}.sql"] = extension_script(plan, changes)
    for (old, before), (new, after) in zip(
        list(releases.items())[:-1], list(releases.items())[1:], strict=True
    ):
        added = after[len(before) :]
        files[f"app_jobs--{old}--{new}.sql"] = update_script(plan, "deploy", added)
        files[f"app_jobs--{new}--{old}.sql"] = update_script(plan, "revert", added[::-1])
    return files


def releases_of(plan: Plan, version: str) -> dict[str, list[Change]]:
    """The changes of each release; what stands behind the last tag is the version to come."""
    names = [tag.name.removeprefix("v") for change in plan.changes for tag in change.tags]
    if plan.changes[-1].tags and names[-1] != version:
        sys.exit(f"VERSION is {version}, but the plan ends with {names[-1]}")
    if not plan.changes[-1].tags and version in names:
        sys.exit(f"there are changes behind the tag of {version}: VERSION must be a later one")
    return {name: plan.release(name) for name in [*names, version]}


# --- for psql ------------------------------------------------------------------------------------


def for_psql(plan: Plan, version: str) -> dict[str, str]:
    """The single file, the verifier and the uninstaller."""
    name = plan.schema
    return {
        f"{name}.sql": page(
            f"{name} {version} in one file and one transaction: psql -f {name}.sql",
            "begin;",
            LOCK,
            *(statements(plan, "deploy", change) for change in plan.changes),
            *registry_rows(plan),
            "commit;",
        ),
        f"{name}_verify.sql": page(
            f"Check {name} {version}, writing nothing: psql -f {name}_verify.sql",
            *(plan.script("verify", change) for change in in_force(plan.changes)),
        ),
        f"{name}_uninstall.sql": page(
            f"Remove {name} {version}, however it was installed: psql -f {name}_uninstall.sql",
            "begin;",
            LOCK,
            _render.render(CHECK_VERSION.replace("$version", version), name),
            _render.render(DETACH, name),
            *(statements(plan, "revert", change) for change in reversed(plan.changes)),
            forget(plan),
            "commit;",
        ),
        f"{name}_testing.sql": _render.render(
            (ROOT / "tests/pgtap/include/testing.sql").read_text(), name
        ),
    }


def page(title: str, *parts: str) -> str:
    """The text of a file for psql."""
    head = f"-- {title}\n-- Made by `make generate`: do not edit.\n\\set ON_ERROR_STOP on"
    return "\n\n".join(part.strip("\n") for part in (head, *parts)) + "\n"


def statements(plan: Plan, kind: str, change: Change) -> str:
    """A script without its own begin and commit, nor the empty lines around the first."""
    return plan.statements(kind, change).replace("\n\n\n\n", "\n\n", 1)


LOCK = f"""-- the lock that Sqitch and the migrator take between deployers
do $$
begin
    perform pg_advisory_xact_lock({migrate.DEPLOYMENT_LOCK});
end;
$$;"""

CHECK_VERSION = """do $$
begin
    if to_regprocedure('app_jobs.version()') is null then
        raise exception 'app_jobs is not installed here, or not completely'
            using errcode = 'JQ091', hint = '`app-jobs revert` removes what it has deployed.';
    elsif app_jobs.version() <> '$version' then
        raise exception 'app_jobs has version % here', app_jobs.version()
            using errcode = 'JQ091', hint = 'Take the uninstaller of that version.';
    end if;
end;
$$;"""

DETACH = """-- An extension's members become objects like any others, which their reverts can drop.
do $$
declare
    v_extension name;
    v_member text;
begin
    select e.extname into v_extension
    from pg_depend as d
    inner join pg_extension as e on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid
    inner join pg_class as c on d.classid = 'pg_class'::regclass and d.objid = c.oid
    where d.deptype = 'e' and c.relnamespace = to_regnamespace('app_jobs')
    limit 1;
    if not found then
        return;
    end if;
    for v_member in
        select format('%s %s', o.type, o.identity)
        from pg_depend as d
        inner join pg_extension as e
            on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid
        cross join pg_identify_object(d.classid, d.objid, d.objsubid) as o
        where
            d.deptype = 'e' and e.extname = v_extension
            -- types of rows and arrays go with what they belong to
            and not (d.classid = 'pg_type'::regclass and exists (
                select from pg_depend as i
                where i.classid = d.classid and i.objid = d.objid and i.deptype = 'i'
            ))
    loop
        execute format('alter extension %I drop %s', v_extension, v_member);
    end loop;
    execute format('drop extension %I', v_extension);
end;
$$;"""


def registry_rows(plan: Plan) -> Iterable[str]:
    """What Sqitch would have written, change by change."""
    registry = plan.registry
    name, email = "current_user", "current_user || '@localhost'"
    committer = {"committer_name": name, "committer_email": email}
    yield f"""-- Sqitch's registry, unless there is one already
do $do$
begin
    if to_regclass('{registry}.releases') is null then
        execute $registry$
{migrate.registry_script(registry).strip()}
$registry$;
        insert into {registry}.releases (version, installer_name, installer_email)
        values ({migrate.REGISTRY_VERSION}, {name}, {email});
    elsif (
        select max(r.version)::text from {registry}.releases as r
    ) <> '{migrate.REGISTRY_VERSION}' then
        raise exception 'Sqitch''s registry here is not of version {migrate.REGISTRY_VERSION}'
            using errcode = 'JQ091', hint = 'Deploy with Sqitch.';
    end if;
end;
$do$;

insert into {registry}.projects (project, uri, creator_name, creator_email)
values ({literal(plan.project)}, {literal(plan.uri)}, {name}, {email})
on conflict (project) do nothing;"""
    for change in plan.changes:
        # a statement each, since Sqitch sorts by the time of writing
        yield "\n".join(
            insert(registry, table, row) for table, row in migrate.rows_of(plan, change, committer)
        )


def insert(registry: str, table: str, row: Mapping[str, object]) -> str:
    """An insert statement of one row; who commits is an expression, all else a value."""
    values = (
        str(value) if name.startswith("committer_") else literal(value)
        for name, value in row.items()
    )
    return f"insert into {registry}.{table} ({', '.join(row)})\nvalues ({', '.join(values)});"


def literal(value: object) -> str:
    """An SQL literal of a text, a list of texts, or null."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"array[{', '.join(map(literal, value))}]::text[]"
    text = str(value)
    assert "\\" not in text
    return "'" + text.replace("'", "''") + "'"


def forget(plan: Plan) -> str:
    """Take the changes out of the registry, if there is one, as their reverts would have."""
    registry, project = plan.registry, literal(plan.project)
    return f"""do $$
begin
    if to_regclass('{registry}.changes') is not null then
        insert into {registry}.events (
            event, change_id, change, project, note, requires, planned_at, planner_name,
            planner_email, committer_name, committer_email
        )
        select
            'revert', c.change_id, c.change, c.project, c.note,
            array(
                select d.dependency from {registry}.dependencies as d
                where d.change_id = c.change_id
            ),
            c.planned_at, c.planner_name, c.planner_email, current_user,
            current_user || '@localhost'
        from {registry}.changes as c
        where c.project = {project};
        delete from {registry}.tags as t where t.project = {project};
        delete from {registry}.dependencies as d
        where d.change_id in (
            select c.change_id from {registry}.changes as c where c.project = {project}
        );
        delete from {registry}.changes as c where c.project = {project};
    end if;
end;
$$;"""


# --- the extension -------------------------------------------------------------------------------


def control(version: str) -> str:
    """The control file."""
    return f"""# Made by `make generate`: do not edit.
comment = 'a job queue: producers add jobs in their transactions, workers run them'
default_version = '{version}'
encoding = 'UTF8'
relocatable = false
superuser = false
"""


EXTENSION_HEAD = """-- Made by `make generate`: do not edit.
\\echo Use "CREATE EXTENSION app_jobs" to load this file. \\quit

-- Every function names the schema in its text, so the text is rendered before it is run.
"""

MAKE_SCHEMA = f"""do $$
declare
    v_schema constant text := {SCHEMA};
begin
    if '@extschema@' = 'public' and to_regnamespace('app_jobs') is null then
        create schema app_jobs;
    elsif '@extschema@' !~ '^(?!pg_)[a-z_][a-z0-9_]{{0,39}}$' then
        raise exception 'schema % cannot be that of app_jobs', '@extschema@'
            using errcode = '22023',
                hint = 'Its name has up to 40 lower-case letters, digits and underscores.';
    elsif '@extschema@' = 'public' or exists (
        select from pg_depend as d
        where
            d.refclassid = 'pg_namespace'::regclass
            and d.refobjid = to_regnamespace('@extschema@')
            and d.classid <> 'pg_extension'::regclass
    ) then
        raise exception 'schema "%" exists and was not made by this extension', v_schema
            using errcode = 'JQ091',
                hint = 'A deployed job queue is upgraded with `app-jobs migrate` or `make deploy`. '
                    'Beside a schema of somebody else: CREATE SCHEMA jobs; '
                    'CREATE EXTENSION app_jobs SCHEMA jobs.';
    end if;
end;
$$;"""


def extension_script(plan: Plan, changes: list[Change]) -> str:
    """The script of CREATE EXTENSION."""
    scripts = [statements(plan, "deploy", change) for change in changes]
    # It has found or made the schema already, which the first change refuses to do.
    _, made, scripts[0] = scripts[0].partition("create schema app_jobs;\n")
    assert made, "the first change makes the schema"
    parts = [
        EXTENSION_HEAD,
        LOCK,
        MAKE_SCHEMA,
        *map(rendered, scripts),
        rendered(members_to_dump(plan)),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def update_script(plan: Plan, kind: str, changes: list[Change]) -> str:
    """The script of ALTER EXTENSION UPDATE, in either direction."""
    scripts = [statements(plan, kind, change) for change in changes]
    parts = [EXTENSION_HEAD, LOCK, *map(rendered, scripts), rendered(members_to_dump(plan))]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def rendered(script: str) -> str:
    """A statement that runs the script under the name of the extension's schema."""
    assert "$script$" not in script and "@ext" not in script
    assert _render.render(script, "x") == script.replace("app_jobs", "x"), (
        "no longer a plain replace"
    )
    return f"""do $do$
begin
    execute replace($script$
{script.strip(chr(10))}
$script$, 'app_jobs', {SCHEMA});
end;
$do$;"""


def members_to_dump(plan: Plan) -> str:
    """Mark tables and sequences, so that pg_dump takes their rows and positions along."""
    scripts = (plan.statements("deploy", change) for change in plan.changes)
    filled = set(re.findall(r"^insert into app_jobs\.(\w+)", "\n".join(scripts), re.MULTILINE))
    if filled != set(ROWS_TO_DUMP):
        sys.exit(f"deploy scripts fill {filled}: which rows is pg_dump to take? See ROWS_TO_DUMP")
    constants = ", ".join(literal(name) for name, rows in ROWS_TO_DUMP.items() if rows is None)
    conditions = " ".join(
        f"when {literal(name)} then {literal(rows)}" for name, rows in ROWS_TO_DUMP.items() if rows
    )
    return f"""do $$
declare
    v_relation record;
begin
    -- one by one, since each call changes the extension's row
    for v_relation in
        select c.oid, case c.relname {conditions} else '' end as rows
        from pg_class as c
        inner join pg_depend as d on d.classid = 'pg_class'::regclass and d.objid = c.oid
        inner join pg_extension as e
            on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid
        where
            c.relnamespace = to_regnamespace('app_jobs')
            and d.deptype = 'e'
            and c.relkind in ('r', 'p', 'S')
            and c.relname not in ({constants})
            and c.oid <> all (coalesce(e.extconfig, '{{}}'))
    loop
        perform pg_extension_config_dump(v_relation.oid, v_relation.rows);
    end loop;
end;
$$;"""


def main() -> None:
    """Write the files, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="exit with 1 if a file is stale")
    parser.add_argument("--schema", help="only the files for psql, under another name")
    arguments = parser.parse_args()
    version = (ROOT / "VERSION").read_text().strip()
    if arguments.schema:
        folder = ROOT / "build" / arguments.schema / "sql"
        files = for_psql(Plan.load(ROOT, arguments.schema), version)
    else:
        folder = ROOT / "sql"
        files = build(Plan.load(ROOT), version)
    there = {path.name: path for path in folder.glob("*")} if folder.exists() else {}
    if arguments.check:
        if {name: path.read_text("utf-8") for name, path in there.items()} != files:
            sys.exit("sql/ is stale: run make generate")
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    for name in there.keys() - files.keys():
        there[name].unlink()


if __name__ == "__main__":
    main()
