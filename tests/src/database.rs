//! A database of its own for each test, and sessions in it under a role and its claims.

use crate::Cluster;
use postgres::{Client, Error};

/// A database in a cluster; it goes away with the cluster.
pub struct Database<'cluster> {
    cluster: &'cluster Cluster,
    name: String,
}

impl<'cluster> Database<'cluster> {
    pub(crate) fn new(cluster: &'cluster Cluster, name: String) -> Self {
        Self { cluster, name }
    }

    /// The cluster it is in.
    pub fn cluster(&self) -> &'cluster Cluster {
        self.cluster
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A new session of the superuser.
    pub fn superuser(&self) -> Client {
        self.cluster.connect("postgres", &self.name)
    }

    /// A new role that may log in, with the privileges that `storage.grant_access` gives to `level`.
    pub fn role(&self, level: &str) -> String {
        // Roles belong to the cluster, so the database's name keeps those of different tests apart.
        let role = format!("{}_{level}", self.name);
        let mut session = self.superuser();
        session.batch_execute(&format!("CREATE ROLE {role} LOGIN")).expect("CREATE ROLE");
        session.execute("SELECT storage.grant_access($1, $2)", &[&role, &level]).expect("grant_access");
        role
    }

    /// A new session logged in as `role` with its claims set, such as `[("jwt.claims.user_id", "ada")]`.
    pub fn connect_as(&self, role: &str, claims: &[(&str, &str)]) -> Client {
        self.try_connect_as(role, claims).expect("connect with claims")
    }

    /// The same, or why not.
    pub fn try_connect_as(&self, role: &str, claims: &[(&str, &str)]) -> Result<Client, Error> {
        let mut session = self.cluster.try_connect(role, &self.name)?;
        for (name, value) in claims {
            session.execute("SELECT set_config($1, $2, false)", &[name, value])?;
        }
        Ok(session)
    }
}
