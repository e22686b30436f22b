-- Keeps a search table up to date whenever a note is added.
--
-- FAULT, on purpose: nobody wrote the `create table note_search`. SQLite looks a trigger's tables up
-- when it fires, so that this migration succeeds, reading works, and adding a note fails.

create trigger notes_search_insert after insert on notes
begin
    insert into note_search (note_id, words)
    values (new.id, lower(new.title || ' ' || new.body));
end;
