-- Gives each note a colour by its priority.
--
-- FAULT, on purpose: the last statement reads a column that no migration ever added. The statements
-- before it have already changed rows, so that a half-applied migration would be seen.

alter table notes add column colour text not null default 'plain';

update notes set colour = 'red', title = upper(title) where priority = 3;

update notes set colour = category where colour = 'plain';
