-- One transfer, for pgbench. The accounts in order, so that two clients never wait for each other.
\set one random(1, 1000)
\set two random(1, 1000)
\set debit least(:one, :two)
\set credit greatest(:one, :two)
\set amount random(1, 100)
begin;
update bank.accounts set balance = balance - :amount where id = :debit;
update bank.accounts set balance = balance + :amount where id = :credit;
insert into bank.transfers (debit, credit, amount) values (:debit, :credit, :amount);
commit;
