"""postgres_tables: the numbered SQL that makes our tables and functions in PostgreSQL; `postgres_schema` runs it."""

from __future__ import annotations

from typing import Final, LiteralString

Migration = tuple[LiteralString, ...]
"""The statements that lead from one version of a component's schema to the next."""

STORE: Final[tuple[Migration, ...]] = (
    (
        # Fixed-width columns first: nothing is lost to alignment. Names sort by their octets ("C"): cheaper, and no
        # update of the system's locales can spoil the index.
        #
        # `due` is `expires_at` in steps of 4.4 minutes. It is indexed, and `expires_at` is not: most touches then
        # change no indexed column and are done inside of their page (a "heap-only tuple"; the tenth of each page that
        # is left free is for these), and equal keys share their place in the index.
        """
        CREATE TABLE coatcheck_record (
            seen_at bigint NOT NULL,
            expires_at bigint NOT NULL,
            due int NOT NULL GENERATED ALWAYS AS (least(expires_at >> 18, 2147483647)::int) STORED,
            version int NOT NULL,
            superseded boolean NOT NULL,
            id bytea NOT NULL PRIMARY KEY,
            subject text COLLATE "C",
            body bytea NOT NULL
        ) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05)
        """,
        "CREATE INDEX coatcheck_record_subject ON coatcheck_record (subject) WHERE subject IS NOT NULL",
        "CREATE INDEX coatcheck_record_due ON coatcheck_record (due)",
        """
        CREATE TABLE coatcheck_cutoff (
            before bigint NOT NULL,
            subject text COLLATE "C" NOT NULL PRIMARY KEY
        )
        """,
        # The locks of the next two are explained in coatcheck.stores.postgres. It matters that they are PL/pgSQL and
        # VOLATILE: each of their statements then sees what was committed before it began, not before the call.
        """
        CREATE FUNCTION coatcheck_create(
            new_id bytea, new_subject text, new_version int, new_seen_at bigint, new_expires_at bigint,
            new_superseded boolean, new_body bytea, new_created_at bigint
        ) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
        BEGIN
            IF new_subject IS NOT NULL THEN
                PERFORM pg_advisory_xact_lock_shared(hashtextextended(new_subject, 7073871523));
                PERFORM FROM coatcheck_cutoff WHERE subject = new_subject AND before > new_created_at;
                IF FOUND THEN
                    RETURN false;
                END IF;
            END IF;
            INSERT INTO coatcheck_record (id, subject, version, seen_at, expires_at, superseded, body)
            VALUES (new_id, new_subject, new_version, new_seen_at, new_expires_at, new_superseded, new_body)
            ON CONFLICT (id) DO NOTHING;
            RETURN FOUND;
        END
        $$
        """,
        """
        CREATE FUNCTION coatcheck_revoke(whose text, cut bigint, kept bytea)
        RETURNS TABLE (gone_id bytea, gone_superseded boolean) LANGUAGE plpgsql VOLATILE AS $$
        BEGIN
            PERFORM pg_advisory_xact_lock(hashtextextended(whose, 7073871523));
            INSERT INTO coatcheck_cutoff AS cutoff (subject, before) VALUES (whose, cut)
            ON CONFLICT (subject) DO UPDATE SET before = greatest(cutoff.before, excluded.before);
            RETURN QUERY DELETE FROM coatcheck_record WHERE subject = whose AND id IS DISTINCT FROM kept
                RETURNING id, superseded;
        END
        $$
        """,
        # The only write that does not wait for the disk, nor for a standby.
        """
        CREATE FUNCTION coatcheck_touch(old_id bytea, new_seen_at bigint, new_expires_at bigint)
        RETURNS void LANGUAGE plpgsql VOLATILE AS $$
        BEGIN
            SET LOCAL synchronous_commit = off;
            UPDATE coatcheck_record SET
                seen_at = greatest(seen_at, new_seen_at), expires_at = greatest(expires_at, new_expires_at)
            WHERE id = old_id AND NOT superseded AND (seen_at < new_seen_at OR expires_at < new_expires_at);
        END
        $$
        """,
    ),
    (
        # The writes of one tick, together; the callers give them in the order of their ids. One UPDATE for each, so
        # that each is judged after those before it; why they cannot deadlock is said in coatcheck.stores.postgres.
        # Waiting for one row must not take the time of all: past `patience` the caller tries each by itself.
        """
        CREATE FUNCTION coatcheck_replace_all(
            ids bytea[], subjects text[], versions int[], seen bigint[], expiries bigint[], superseding boolean[],
            bodies bytea[], patience text
        ) RETURNS boolean[] LANGUAGE plpgsql VOLATILE AS $$
        DECLARE
            done boolean[];
        BEGIN
            PERFORM set_config('lock_timeout', patience, true);
            FOR n IN 1 .. cardinality(ids) LOOP
                UPDATE coatcheck_record SET
                    version = versions[n],
                    seen_at = greatest(seen_at, seen[n]),
                    expires_at = CASE WHEN superseding[n] THEN expiries[n] ELSE greatest(expires_at, expiries[n]) END,
                    superseded = superseding[n],
                    body = bodies[n]
                WHERE id = ids[n] AND subject IS NOT DISTINCT FROM subjects[n] AND version = versions[n] - 1;
                done[n] = FOUND;
            END LOOP;
            RETURN done;
        END
        $$
        """,
        # The only write that does not wait for the disk, nor for a standby.
        """
        CREATE FUNCTION coatcheck_touch_all(ids bytea[], seen bigint[], expiries bigint[], patience text)
        RETURNS boolean[] LANGUAGE plpgsql VOLATILE AS $$
        DECLARE
            done boolean[];
        BEGIN
            SET LOCAL synchronous_commit = off;
            PERFORM set_config('lock_timeout', patience, true);
            FOR n IN 1 .. cardinality(ids) LOOP
                UPDATE coatcheck_record SET
                    seen_at = greatest(seen_at, seen[n]), expires_at = greatest(expires_at, expiries[n])
                WHERE id = ids[n] AND NOT superseded AND (seen_at < seen[n] OR expires_at < expiries[n]);
                done[n] = FOUND;
            END LOOP;
            RETURN done;
        END
        $$
        """,
        # Whoever wants several rows takes them in the order of their ids. No row of the subject is new after that: the
        # advisory lock keeps them out.
        """
        CREATE OR REPLACE FUNCTION coatcheck_revoke(whose text, cut bigint, kept bytea)
        RETURNS TABLE (gone_id bytea, gone_superseded boolean) LANGUAGE plpgsql VOLATILE AS $$
        BEGIN
            PERFORM pg_advisory_xact_lock(hashtextextended(whose, 7073871523));
            INSERT INTO coatcheck_cutoff AS cutoff (subject, before) VALUES (whose, cut)
            ON CONFLICT (subject) DO UPDATE SET before = greatest(cutoff.before, excluded.before);
            PERFORM FROM coatcheck_record WHERE subject = whose AND id IS DISTINCT FROM kept ORDER BY id FOR UPDATE;
            RETURN QUERY DELETE FROM coatcheck_record WHERE subject = whose AND id IS DISTINCT FROM kept
                RETURNING id, superseded;
        END
        $$
        """,
    ),
)

DOCUMENTS: Final[tuple[Migration, ...]] = (
    (
        # Keys are octets: they sort by them, whatever the database's locale.
        """
        CREATE TABLE coatcheck_document (
            expires_at bigint,
            key bytea NOT NULL PRIMARY KEY,
            value bytea NOT NULL
        ) WITH (autovacuum_vacuum_scale_factor = 0.05)
        """,
        # Those that stay, for `page`: it does not pass through a million attempts to sign in.
        "CREATE INDEX coatcheck_document_lasting ON coatcheck_document (key) WHERE expires_at IS NULL",
        "CREATE INDEX coatcheck_document_expires_at ON coatcheck_document (expires_at) WHERE expires_at IS NOT NULL",
        # The locks are explained in coatcheck.stores.postgres_documents. It matters that this is PL/pgSQL and VOLATILE,
        # as above; and that the locks are taken in the order of their numbers: two keys may share one.
        """
        CREATE FUNCTION coatcheck_commit(
            read_keys bytea[], read_values bytea[], new_keys bytea[], new_values bytea[], new_expires_at bigint
        ) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
        DECLARE
            number bigint;
        BEGIN
            FOR number IN
                SELECT DISTINCT hashtextextended(encode(named, 'hex'), 8137924605)
                FROM unnest(read_keys || new_keys) AS named ORDER BY 1
            LOOP
                PERFORM pg_advisory_xact_lock(number);
            END LOOP;
            PERFORM FROM unnest(read_keys, read_values) AS expected (key, value)
                LEFT JOIN coatcheck_document AS found ON found.key = expected.key
                WHERE found.value IS DISTINCT FROM expected.value;
            IF FOUND THEN
                RETURN false;
            END IF;
            DELETE FROM coatcheck_document USING unnest(new_keys, new_values) AS new (key, value)
                WHERE coatcheck_document.key = new.key AND new.value IS NULL;
            INSERT INTO coatcheck_document (expires_at, key, value)
                SELECT new_expires_at, new.key, new.value FROM unnest(new_keys, new_values) AS new (key, value)
                WHERE new.value IS NOT NULL
                ON CONFLICT (key) DO UPDATE SET expires_at = excluded.expires_at, value = excluded.value;
            RETURN true;
        END
        $$
        """,
        # It does not wait for the disk, nor for a standby.
        """
        CREATE FUNCTION coatcheck_note(
            read_keys bytea[], read_values bytea[], new_keys bytea[], new_values bytea[], new_expires_at bigint
        ) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
        BEGIN
            SET LOCAL synchronous_commit = off;
            RETURN coatcheck_commit(read_keys, read_values, new_keys, new_values, new_expires_at);
        END
        $$
        """,
    ),
)

FEED: Final[tuple[Migration, ...]] = (
    (
        """
        CREATE TABLE coatcheck_revocation (
            number bigint NOT NULL PRIMARY KEY,
            due bigint NOT NULL,
            tag int NOT NULL,
            body bytea NOT NULL
        ) WITH (autovacuum_vacuum_scale_factor = 0.05)
        """,
        # The lock is explained in coatcheck.feeds.postgres. It matters that this is PL/pgSQL and VOLATILE, as above. A
        # few rows at the front that are of no use any more are dropped; the newest one stays, for its number.
        """
        CREATE FUNCTION coatcheck_publish(new_lives bigint[], new_tags int[], new_bodies bytea[])
        RETURNS void LANGUAGE plpgsql VOLATILE AS $$
        DECLARE
            present bigint := extract(epoch FROM clock_timestamp()) * 1000;
            last bigint;
        BEGIN
            PERFORM pg_advisory_xact_lock(hashtextextended(current_schema(), 5120873346));
            SELECT coalesce(max(number), 0) INTO last FROM coatcheck_revocation;
            DELETE FROM coatcheck_revocation WHERE due <= present AND number IN (
                SELECT number FROM coatcheck_revocation WHERE number < last
                ORDER BY number LIMIT 4 * cardinality(new_bodies)
            );
            INSERT INTO coatcheck_revocation (number, due, tag, body)
                SELECT last + place, present + life, tag, body
                FROM unnest(new_lives, new_tags, new_bodies) WITH ORDINALITY AS new (life, tag, body, place);
            PERFORM pg_notify(current_schema(), '');
        END
        $$
        """,
    ),
)
