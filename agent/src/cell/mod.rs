//! The cell: a daemon that keeps instances and tasks running, tells the truth about them, and survives its own death.
//!
//! ```text
//!  callers ──gRPC──> service ──Call──> core (one thread owns all instances) ──Job──> workers ──> holder ──clone3──> container
//!  auctioneers ────> books (ledger)      │  instance: (event, now) -> effects         │ place: root, network, spec
//!                                        │  journal: on disk before it is acted on    └ image: leased, mounted, pulled
//!                                        └─ events: what Watch reads      <── ends ── holder: parent of all containers
//! ```
//! | room | its one job |
//! |---|---|
//! | [`instance`] | the state machine of an instance or a task; pure |
//! | [`journal`] | what was asked for and what became of it, on disk |
//! | [`holder`] | the process that containers are children of, so that the agent may die |
//! | [`core`] | events to machines, machines' effects to workers |
//! | [`wish`], [`wish_health`] | a message of the API as checked types |
//! | [`image`], [`place`] | what a container runs from and in |
//! | [`image_gc`] | images go before the disk is full |
//! | [`health`] | whether an instance has come up, lives and is ready |
//! | [`logs`] | what instances write, in bounded files |
//! | [`forward`] | the same, sent on to syslog and OTLP |
//! | [`network`] | the cell's own network: prepared namespaces, published ports, who may send what |
//! | [`books`] | the cell's side of the auction |
//! | [`lock`] | that there is one agent |
//! | [`events`], [`view`], [`metrics`] | what is shown |
//! | [`tell`] | what the agent says of itself |
//! | [`service`], [`agent`] | the API, and the daemon around all |
//! | [`crowd`] | strangers' tasks, at most so many |
//! | [`door`] | TCP with certificates on both sides |
//! | [`config`] | its TOML file |

pub mod agent;
pub mod books;
pub mod config;
pub mod core;
pub mod crowd;
pub mod door;
pub mod error;
pub mod events;
pub mod forward;
pub mod health;
pub mod holder;
pub mod image;
pub mod image_gc;
pub mod instance;
pub mod journal;
pub mod lock;
pub mod logs;
pub mod metrics;
pub mod network;
pub mod place;
pub mod service;
pub mod tell;
pub mod view;
pub mod wish;
pub mod wish_health;
pub mod words;
pub mod work;

pub use error::CellError;
