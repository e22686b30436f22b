//! What belongs to the server and not to a database: roles and what they may do.
//!
//! Owns what is read of it. A password is taken over as a digest only.

use super::super::postgres::schema::{Object, Objects};
use super::{Client, Result, session};

/// What servers of all versions have.
const RIGHTS: [&str; 17] = [
    "Select",
    "Insert",
    "Update",
    "Delete",
    "Create",
    "Drop",
    "Grant",
    "References",
    "Index",
    "Alter",
    "Create_view",
    "Show_view",
    "Create_routine",
    "Alter_routine",
    "Execute",
    "Event",
    "Trigger",
];

fn script() -> String {
    let rights = |table: &str| {
        RIGHTS.map(|r| format!("IF({table}.{r}_priv = 'Y', '{} ', '')", r.to_lowercase())).join(", ")
    };
    format!(
        "SELECT 'o', 'role', HEX(CONCAT(u.User, '@', u.Host)), '', HEX(CONCAT({}, IF(u.Super_priv = 'Y', 'super', ''))) FROM mysql.user u;
SELECT 'o', 'password', HEX(CONCAT(u.User, '@', u.Host)), HEX(CONCAT(u.User, '@', u.Host)), HEX(MD5(CONCAT(u.plugin, ' ', IFNULL(u.authentication_string, '')))) FROM mysql.user u;
SELECT 'o', 'privilege', HEX(CONCAT(d.User, '@', d.Host, ' on ', d.Db)), '', HEX(CONCAT({})) FROM mysql.db d;
SELECT 'o', 'privilege', HEX(CONCAT(t.User, '@', t.Host, ' on ', t.Db, '.', t.Table_name)), '', HEX(CONCAT(t.Table_priv, ' ', t.Column_priv)) FROM mysql.tables_priv t;",
        rights("u"),
        rights("d"),
    )
}

/// Reads it; `None` where the role may not.
pub(super) fn globals(client: &dyn Client, cancel: &dyn Fn() -> bool) -> Result<Option<Objects>> {
    let mut objects = Objects::new();
    let read = session::each_line(client, "", &session::reading(&script()), cancel, |row| {
        let object = Object {
            parent: Some(row.name(3)?).filter(|p| !p.is_empty()),
            definition: row.name(4)?.trim().to_owned(),
        };
        objects.insert((row.text(1)?.to_owned(), row.name(2)?), object);
        Ok(())
    });
    match read {
        Ok(()) => Ok(Some(objects)),
        Err(e) if e.is_denied() => Ok(None),
        Err(e) => Err(e),
    }
}
