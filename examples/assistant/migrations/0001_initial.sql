-- Notes, their tags, and the list of uploaded files (whose bytes live in the uploads folder).

create table notes (
    id         integer primary key,
    title      text not null,
    created_at text not null,
    -- Last, because bodies can be long: the other columns are then read without them.
    body       text not null default ''
);

create table tags (
    id   integer primary key,
    name text not null unique
);

create table note_tags (
    note_id integer not null references notes (id) on delete cascade,
    tag_id  integer not null references tags (id) on delete cascade,
    primary key (note_id, tag_id)
) without rowid;

create table uploads (
    id         integer primary key,
    name       text not null,
    bytes      integer not null,
    stored_as  text not null,
    created_at text not null
);
