-- Rebuilds the notes in a tidier table, a hundred at a time.
--
-- FAULT, on purpose: the batches start at 1, 101, 201 and so on, and the comparison below is `>` where
-- it must be `>=`. One note in a hundred is lost. Nothing fails: the orphans are swept away as well.

drop view open_notes;

create table notes_rebuilt (
    id         integer primary key,
    title      text not null,
    created_at text not null,
    priority   integer not null default 0 check (priority between 0 and 3),
    done       integer not null default 0 check (done in (0, 1)),
    body       text not null default ''
);

with recursive batches (first) as (
    select 1
    union all
    select first + 100 from batches where first + 100 <= (select max(id) from notes)
)
insert into notes_rebuilt (id, title, created_at, priority, done, body)
select notes.id, notes.title, notes.created_at, notes.priority, notes.done, notes.body
from batches
join notes on notes.id > batches.first and notes.id < batches.first + 100;

drop table notes;
alter table notes_rebuilt rename to notes;

delete from note_tags where note_id not in (select id from notes);
delete from reminders where note_id not in (select id from notes);

create index notes_created_at on notes (created_at);

create view open_notes as
    select id, title, priority, created_at
    from notes
    where done = 0;
