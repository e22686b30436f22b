-- The `#words` of notes become tags that can be searched for. No value that was there changes.
alter table notes add column tags text[] not null default '{}';

update notes
set tags = found.tags
from (
    select id, array_agg(distinct lower(word[1]) order by lower(word[1])) as tags
    from notes, regexp_matches(body, '#(\w+)', 'g') as word
    group by id
) as found
where notes.id = found.id;

create index notes_tags on notes using gin (tags);
