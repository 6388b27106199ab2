//! A client: transactions of random actions with every kind of end, and what is believed after each.

use crate::ledger::{Effect, Ledger, Standing};
use crate::session::{Session, Trouble};
use crate::world::World;
use pg_storage_tests::Rng;

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Request,
    Put,
    Confirm,
    Delete,
    Abort,
    Download,
}

/// What usually belongs together.
const SENTENCES: [&[Step]; 7] = [
    &[Step::Request, Step::Put, Step::Confirm],
    &[Step::Request, Step::Put, Step::Confirm],
    &[Step::Request, Step::Put],
    &[Step::Put, Step::Confirm],
    &[Step::Confirm],
    &[Step::Delete],
    &[Step::Download],
];

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Each statement is its own.
    Auto,
    Commit,
    Rollback,
    Prepare,
    /// The client goes away in the middle.
    Vanish,
}

/// A transaction that waits for its second phase.
struct Prepared {
    name: String,
    commit: bool,
    effects: Vec<Effect>,
    /// Whether PREPARE was seen to succeed.
    certain: bool,
    /// Whether the second phase was asked for without an answer.
    asked: bool,
}

/// A thread of the load.
pub struct Client {
    pub world: &'static World,
    pub session: Session,
    /// Another session of the same user, for what happens at once.
    pub second: Session,
    pub user: String,
    pub tenant: String,
    /// The choices of one episode. Each has its own, so that a plan repeats whatever became of the episode before.
    pub rng: Rng,
    plan: Rng,
    pub ledger: Ledger,
    pub requests: usize,
    /// The upload that the last request opened.
    pub current: Option<String>,
    /// Buckets this user may upload to.
    pub buckets: &'static [&'static str],
    /// Whether each statement is a transaction.
    pub auto: bool,
    prepared: Vec<Prepared>,
    transactions: usize,
}

impl Client {
    pub fn new(
        world: &'static World,
        user: &str,
        tenant: &str,
        buckets: &'static [&'static str],
        rng: Rng,
    ) -> Self {
        Self {
            world,
            session: Session::new(world, user.to_owned(), user, tenant),
            second: Session::new(world, format!("{user}, second session"), user, tenant),
            user: user.to_owned(),
            tenant: tenant.to_owned(),
            rng: rng.clone(),
            plan: rng,
            ledger: Ledger::default(),
            requests: 0,
            current: None,
            buckets,
            auto: true,
            prepared: Vec::new(),
            transactions: 0,
        }
    }

    /// Works until the run is over, or for so many episodes, and settles what is open.
    pub fn work(mut self, episodes: usize) -> Self {
        for _ in 0..episodes {
            if self.world.is_finishing() {
                break;
            }
            self.rng = self.plan.fork();
            self.episode();
            self.ledger.tidy();
        }
        while !self.prepared.is_empty() && self.session.connect().is_ok() {
            self.second_phase();
        }
        // Of newcomers there are more than the server has connections.
        self.session.drop_connection();
        self.second.drop_connection();
        self
    }

    fn episode(&mut self) {
        if self.session.connect().is_err() {
            return;
        }
        if !self.prepared.is_empty() && self.rng.percent(70) {
            self.second_phase();
        }
        match self.rng.below(100) {
            0..8 => self.put_out_of_turn(),
            8..14 => self.confirm_at_once(),
            14..20 => self.read_a_strangers_file(),
            20 => self.session.drop_connection(),
            _ => self.transaction(),
        }
    }

    fn transaction(&mut self) {
        let end = match self.rng.below(100) {
            0..40 => End::Auto,
            40..70 => End::Commit,
            70..84 => End::Rollback,
            84..97 => End::Prepare,
            _ => End::Vanish,
        };
        let hurried = self.rng.percent(6);
        if hurried {
            let limit = 5 + self.rng.below(80);
            if self.session.run("SET statement_timeout", &format!("SET statement_timeout = {limit}")).is_err()
            {
                return;
            }
        }
        self.current = None;
        self.auto = end == End::Auto;
        if self.auto {
            // What happened is in the ledger already.
            let _ = self.sentences();
        } else if self.session.run("BEGIN", "BEGIN").is_ok() {
            match self.sentences() {
                Ok(effects) => self.end(end, effects),
                Err(effects) => {
                    self.ledger.roll_back(effects);
                    // Should this fail, the connection goes, and the transaction with it.
                    if self.session.run("ROLLBACK", "ROLLBACK").is_err() {
                        self.session.drop_connection();
                    }
                }
            }
        }
        while hurried && self.session.is_connected() {
            if self.session.run("SET statement_timeout", "SET statement_timeout = '5s'").is_ok() {
                break;
            }
        }
    }

    /// Some sentences, in savepoints now and then. `Err` when the transaction can only be rolled back.
    fn sentences(&mut self) -> Result<Vec<Effect>, Vec<Effect>> {
        let (auto, mut effects) = (self.auto, Vec::new());
        for _ in 0..=self.rng.below(2) {
            let sentence: &[Step] =
                if self.rng.percent(4) { &[Step::Abort] } else { self.rng.pick(&SENTENCES) };
            let savepoint = !auto && self.rng.percent(30);
            let before = effects.len();
            if savepoint && self.session.run("SAVEPOINT", "SAVEPOINT s").is_err() {
                return Err(effects);
            }
            let mut failed = false;
            for step in sentence {
                match self.step(*step, &effects) {
                    Ok(done) if auto => self.ledger.commit(done),
                    Ok(done) => effects.extend(done),
                    // The statement may have been carried out and committed by itself.
                    Err((Trouble::Lost, possible)) if auto => {
                        self.ledger.lose(possible);
                        return Ok(Vec::new());
                    }
                    Err((Trouble::Lost, possible)) => {
                        self.ledger.roll_back(possible);
                        return Err(effects);
                    }
                    Err((Trouble::Refused(_), possible)) => {
                        self.ledger.roll_back(possible);
                        failed = true;
                        break;
                    }
                }
            }
            if savepoint {
                let undo = failed || self.rng.percent(50);
                let statement = if undo { "ROLLBACK TO s" } else { "RELEASE s" };
                if self.session.run(if undo { "ROLLBACK TO" } else { "RELEASE" }, statement).is_err() {
                    return Err(effects);
                }
                if undo {
                    let undone = effects.split_off(before);
                    self.ledger.roll_back(undone);
                    self.current = None;
                }
            } else if failed && !auto {
                return Err(effects);
            }
        }
        Ok(effects)
    }

    fn end(&mut self, end: End, effects: Vec<Effect>) {
        match end {
            End::Auto => {}
            End::Vanish => {
                self.session.drop_connection();
                self.world.did("vanish");
                self.ledger.roll_back(effects);
            }
            End::Rollback => {
                if self.session.run("ROLLBACK", "ROLLBACK").is_err() {
                    self.session.drop_connection();
                }
                self.ledger.roll_back(effects);
            }
            End::Commit => match self.session.run("COMMIT", "COMMIT") {
                Ok(()) => self.ledger.commit(effects),
                Err(Trouble::Refused(_)) => self.ledger.roll_back(effects),
                Err(Trouble::Lost) => self.ledger.lose(effects),
            },
            End::Prepare => {
                self.transactions += 1;
                let name = format!("{} {} {}", self.tenant, self.user, self.transactions);
                let certain = match self.session.run("PREPARE", &format!("PREPARE TRANSACTION '{name}'")) {
                    Ok(()) => true,
                    Err(Trouble::Lost) => false,
                    Err(Trouble::Refused(_)) => return self.ledger.roll_back(effects),
                };
                self.ledger.hold(&effects, true);
                let commit = self.rng.percent(65);
                self.prepared.push(Prepared { name, commit, effects, certain, asked: false });
                if self.rng.percent(70) && certain {
                    self.second_phase();
                }
            }
        }
    }

    /// Finishes the oldest prepared transaction, if the server lets us.
    fn second_phase(&mut self) {
        let mut prepared = self.prepared.remove(0);
        let (what, verb) =
            if prepared.commit { ("COMMIT PREPARED", "COMMIT") } else { ("ROLLBACK PREPARED", "ROLLBACK") };
        let result = self.session.run(what, &format!("{verb} PREPARED '{}'", prepared.name));
        let absent = matches!(&result, Err(Trouble::Refused(refusal)) if refusal.sqlstate == "42704");
        let committed = match result {
            Ok(()) => prepared.commit,
            Err(Trouble::Refused(_)) if absent && prepared.asked => prepared.commit,
            Err(Trouble::Refused(_)) if absent => {
                if prepared.certain {
                    self.world.violation(format!("the prepared transaction {} is gone", prepared.name));
                }
                false
            }
            Err(trouble) => {
                prepared.asked |= matches!(trouble, Trouble::Lost);
                self.prepared.insert(0, prepared);
                return;
            }
        };
        self.ledger.hold(&prepared.effects, false);
        if committed {
            self.ledger.commit(prepared.effects);
        } else {
            self.ledger.roll_back(prepared.effects);
        }
    }

    /// One of the uploads that are in this state.
    pub fn any_upload(&mut self, standing: &[Standing]) -> Option<String> {
        let candidates: Vec<String> = self.ledger.in_standing(standing).map(|(id, _)| id.clone()).collect();
        (!candidates.is_empty()).then(|| self.rng.pick(&candidates))
    }
}
