-- Accounts whose sum never changes, for a load that transfers between them (transfer.sql). A copy that was
-- not taken at one moment breaks the sum, or the balances that the transfers explain.
create schema bank;
create table bank.accounts (id integer primary key, balance bigint not null);
insert into bank.accounts select n, 1000 from generate_series(1, 1000) n;
create table bank.transfers (
    id bigint generated always as identity primary key,
    debit integer not null references bank.accounts,
    credit integer not null references bank.accounts,
    amount bigint not null,
    at timestamptz not null default clock_timestamp()
);
create view bank.audit as
with moved as (
    select id, sum(amount) as amount
    from (select credit as id, amount from bank.transfers union all select debit, -amount from bank.transfers) m
    group by id
)
select (select sum(balance) from bank.accounts) as total,
       (select count(*) * 1000 from bank.accounts) as expected,
       (select count(*) from bank.transfers) as transfers,
       (select count(*) from bank.accounts a left join moved m using (id)
        where a.balance <> 1000 + coalesce(m.amount, 0)) as unexplained;
