-- Notes become tasks: they have a priority (0 none to 3 high), can be done, and can have reminders.

alter table notes add column priority integer not null default 0 check (priority between 0 and 3);
alter table notes add column done integer not null default 0 check (done in (0, 1));

create table reminders (
    id      integer primary key,
    note_id integer not null references notes (id) on delete cascade,
    at      text not null
);

create index reminders_note_id on reminders (note_id);
create index reminders_at on reminders (at);
create index notes_created_at on notes (created_at);

create view open_notes as
    select id, title, priority, created_at
    from notes
    where done = 0;

-- What people had marked by hand becomes a priority.
update notes
set priority = 3
where id in (
    select note_tags.note_id
    from note_tags
    join tags on tags.id = note_tags.tag_id
    where tags.name = 'urgent'
);
