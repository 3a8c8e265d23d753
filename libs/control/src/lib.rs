//! What the control plane knows without clocks, sockets or databases: how runs live, and what it says to the processes of an attempt.
//!
//! [`run`] has the states of a run and the arrows between them; [`attempt`] the messages, [`follow`] what a look at an attempt means, [`inspect`] questions to a process that may
//! die, [`savepoint`] what becomes of a savepoint's state in another graph; [`epochs`] how an epoch becomes durable and a run goes on after a failure, [`restart`] when it does. Everything here is pure.

pub mod attempt;
pub mod epochs;
pub mod follow;
pub mod inspect;
pub mod restart;
pub mod run;
pub mod savepoint;
