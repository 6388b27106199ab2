//! A client's connection: it breaks, it is made again, and every answer is looked at.

use crate::world::World;
use pg_storage_tests::Refusal;
use postgres::{Client, Error};
use std::time::{Duration, Instant};

/// How long a client tries to connect; a server that was killed is back long before.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a client may meet while faults are injected. Anything else is a defect.
const EXPECTED: [&str; 14] = [
    // Cancelled, or out of time.
    "57014",
    // The store failed.
    "58030 STORE_UNAVAILABLE",
    "58030 STORE_TIMEOUT",
    "58030 STORE_DENIED",
    "58030 STORE_ERROR",
    // What somebody else did first.
    "42704 UPLOAD_NOT_FOUND",
    "42704 FILE_NOT_FOUND",
    "42710 PATH_TAKEN",
    "55000 UPLOAD_NOT_PENDING",
    // Two transactions of several uploads each, in another order.
    "40P01",
    // A prepared transaction that is not there, or is just being finished.
    "42704",
    "55000",
    "53300",
    "53400 QUOTA_EXCEEDED",
];

/// Why there is no result.
#[derive(Debug)]
pub enum Trouble {
    /// An ERROR: the statement did nothing.
    Refused(Box<Refusal>),
    /// The connection broke.
    Lost,
}

impl Trouble {
    pub fn is(&self, sqlstate: &str, token: &str) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code() == (sqlstate, token))
    }
}

/// A session of one user that comes back after every break.
pub struct Session {
    pub world: &'static World,
    pub name: String,
    user: String,
    tenant: String,
    founded: bool,
    client: Option<Client>,
}

impl Session {
    pub fn new(world: &'static World, name: String, user: &str, tenant: &str) -> Self {
        Self { world, name, user: user.to_owned(), tenant: tenant.to_owned(), founded: false, client: None }
    }

    /// Connects if need be. `Lost` when the server has been away for too long.
    fn client(&mut self) -> Result<&mut Client, Trouble> {
        let deadline = Instant::now() + PATIENCE;
        while self.client.is_none() {
            let (world, founded) = (self.world, self.founded);
            let connected = world.watched(&self.name, "a connection", || {
                let mut client = world.scene.try_session(&self.user, &self.tenant, !founded)?;
                client.batch_execute("SET statement_timeout = '5s'")?;
                Ok::<_, Error>(client)
            });
            match connected {
                Ok(client) => {
                    self.world.did("connect");
                    self.client = Some(client);
                    self.founded = true;
                }
                Err(error) if Instant::now() > deadline => {
                    self.world.violation(format!("{} cannot connect: {error}", self.name));
                    return Err(Trouble::Lost);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        self.client.as_mut().ok_or(Trouble::Lost)
    }

    /// Ends the connection without a word.
    pub fn drop_connection(&mut self) {
        self.client = None;
    }

    pub fn is_connected(&self) -> bool {
        self.client.as_ref().is_some_and(|client| !client.is_closed())
    }

    /// Connects now rather than with the next statement.
    pub fn connect(&mut self) -> Result<(), Trouble> {
        if !self.is_connected() {
            self.client = None;
        }
        self.client().map(drop)
    }

    /// Runs something in the session that there is; a session that broke is not made again here, because the
    /// transaction it was in is gone.
    pub fn ask<T>(
        &mut self,
        what: &'static str,
        statement: impl FnOnce(&mut Client) -> Result<T, Error>,
    ) -> Result<T, Trouble> {
        let Some(client) = self.client.as_mut() else { return Err(Trouble::Lost) };
        let result = self.world.watched(&self.name, what, || statement(client));
        self.world.did(what);
        result.map_err(|error| self.trouble(what, &error))
    }

    pub fn run(&mut self, what: &'static str, statement: &str) -> Result<(), Trouble> {
        self.ask(what, |client| client.batch_execute(statement))
    }

    fn trouble(&mut self, what: &str, error: &Error) -> Trouble {
        let Some(refusal) = Refusal::of(error).filter(|refusal| !refusal.sqlstate.starts_with("57P")) else {
            self.client = None;
            return Trouble::Lost;
        };
        self.world.refused(&refusal);
        let code = format!("{} {}", refusal.sqlstate, refusal.token);
        if !EXPECTED.contains(&code.trim_end()) {
            self.world.violation(format!("{} was refused {what}: {refusal:?}", self.name));
        }
        Trouble::Refused(Box::new(refusal))
    }
}
