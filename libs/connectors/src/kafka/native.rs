//! librdkafka, as far as it is used: the one place where its pointers are.
//!
//! A client of our own instead of the crate's: whole fetches are taken at once (`rd_kafka_consume_batch_queue`), and every connection is
//! made by a callback that looks at the resolved address first.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::net::IpAddr;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rdkafka::bindings::*;

use crate::Egress;

pub use rdkafka::types::RDKafkaErrorCode as Code;

/// What librdkafka said besides the answers to calls.
pub struct Context {
    egress: Egress,
    said: Mutex<Said>,
    /// Records whose delivery was confirmed or has failed.
    reported: AtomicU64,
}

#[derive(Default)]
struct Said {
    /// Why the newest connection failed.
    reason: Option<String>,
    /// The broker refused who we are, or we refused who it is: trying again will not help.
    credentials: Option<String>,
    /// An address that we may not connect to.
    refused: Option<String>,
    /// The first delivery that failed.
    undelivered: Option<Undelivered>,
    /// The client cannot go on.
    fatal: Option<(Code, String)>,
    /// No broker could be reached when this was heard last.
    all_down: bool,
}

/// A record that did not arrive.
#[derive(Clone, Debug)]
pub struct Undelivered {
    pub code: Code,
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub bytes: usize,
}

impl Context {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn reason(&self) -> Option<String> {
        self.said().reason.clone()
    }

    pub fn credentials(&self) -> Option<String> {
        self.said().credentials.clone()
    }

    /// What was said of credentials is over.
    pub fn forgive(&self) {
        self.said().credentials = None;
    }

    pub fn refused(&self) -> Option<String> {
        self.said().refused.clone()
    }

    pub fn undelivered(&self) -> Option<Undelivered> {
        self.said().undelivered.clone()
    }

    pub fn fatal(&self) -> Option<(Code, String)> {
        self.said().fatal.clone()
    }

    pub fn all_down(&self) -> bool {
        self.said().all_down
    }

    /// A broker has answered.
    pub fn answered(&self) {
        self.said().all_down = false;
    }

    pub fn reported(&self) -> u64 {
        self.reported.load(Ordering::Acquire)
    }

    fn hear(&self, level: c_int, facility: &str, text: &str) {
        // `[thrd:h:1/bootstrap]: h:1/bootstrap: Connect to ... failed: ...`: what stands behind the thread's name is for people.
        let text = text.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")).map_or(text, |(_, rest)| rest);
        let wrong = ["authentication", "Authentication", "SSL handshake failed", "certificate", "SASL"];
        let reason = matches!(facility, "FAIL" | "ERROR" | "SASL" | "SSL" | "CONFWARN");
        if reason && level <= 4 {
            let mut said = self.said();
            // A broker that just closes the connection has told why before.
            let is_credentials = wrong.iter().any(|word| text.contains(word)) && !text.contains("Connect to ");
            if is_credentials {
                said.credentials.get_or_insert_with(|| text.to_string());
            }
            if facility != "CONFWARN" {
                said.reason = Some(text.to_string());
            }
        }
        match level {
            0..=3 => tracing::warn!(target: "kafka", "{facility}: {text}"),
            4..=6 => tracing::info!(target: "kafka", "{facility}: {text}"),
            _ => tracing::debug!(target: "kafka", "{facility}: {text}"),
        }
    }
}

/// # Safety
/// `text` is null or points to a text that ends with a NUL and lives for the call.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// # Safety
/// `opaque` is what [`Client::new`] has set.
unsafe fn context<'a>(opaque: *mut c_void) -> Option<&'a Context> {
    // SAFETY: the client keeps its context until librdkafka has ended all threads that call back.
    unsafe { opaque.cast::<Context>().as_ref() }
}

unsafe extern "C" fn on_log(rk: *const rd_kafka_t, level: c_int, facility: *const c_char, line: *const c_char) {
    // SAFETY: librdkafka calls back with its own handle, whose opaque we have set, and two texts.
    unsafe {
        if let Some(context) = context(rd_kafka_opaque(rk)) {
            context.hear(level, &text(facility), &text(line));
        }
    }
}

unsafe extern "C" fn on_error(rk: *mut rd_kafka_t, error: c_int, reason: *const c_char, opaque: *mut c_void) {
    // SAFETY: librdkafka calls back with its own handle, our opaque, and a text.
    unsafe {
        let Some(context) = context(opaque) else { return };
        let reason = text(reason);
        let is = |code: rd_kafka_resp_err_t| error == code as c_int;
        if is(rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__FATAL) {
            let mut why = [0; 512];
            let code = rd_kafka_fatal_error(rk, why.as_mut_ptr(), why.len());
            context.said().fatal.get_or_insert_with(|| (code.into(), text(why.as_ptr())));
        } else if is(rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__AUTHENTICATION) {
            context.said().credentials.get_or_insert_with(|| reason.clone());
        } else if is(rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
            context.said().all_down = true;
        }
        tracing::debug!(target: "kafka", "{reason}");
    }
}

unsafe extern "C" fn on_connect(
    socket: c_int,
    address: *const libc::sockaddr,
    length: c_int,
    name: *const c_char,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: librdkafka calls back with an address of `length` bytes, a text and our opaque.
    unsafe {
        let Some(context) = context(opaque) else { return libc::EACCES };
        let name = text(name);
        let family = c_int::from((*address).sa_family);
        let (ip, port) = match family {
            libc::AF_INET => {
                let four = &*address.cast::<libc::sockaddr_in>();
                (IpAddr::from(u32::from_be(four.sin_addr.s_addr).to_be_bytes()), u16::from_be(four.sin_port))
            }
            libc::AF_INET6 => {
                let six = &*address.cast::<libc::sockaddr_in6>();
                (IpAddr::from(six.sin6_addr.s6_addr), u16::from_be(six.sin6_port))
            }
            _ => return libc::EAFNOSUPPORT,
        };
        let host = name.rsplit_once(':').map_or(name.as_str(), |(host, _)| host).trim_matches(['[', ']']);
        if !context.egress.allows(host, port, ip) {
            context.said().refused.get_or_insert_with(|| match host == ip.to_string() {
                true => format!("{host}:{port}"),
                false => format!("{host}:{port} ({ip})"),
            });
            return libc::EACCES;
        }
        match libc::connect(socket, address, length as libc::socklen_t) {
            0 => 0,
            _ => match std::io::Error::last_os_error().raw_os_error() {
                // The socket does not block: the connection is on its way.
                Some(libc::EINPROGRESS) | None => 0,
                Some(error) => error,
            },
        }
    }
}

unsafe extern "C" fn on_delivery(_: *mut rd_kafka_t, message: *const rd_kafka_message_t, opaque: *mut c_void) {
    // SAFETY: librdkafka calls back with a message that lives for the call, and our opaque.
    unsafe {
        let Some(context) = context(opaque) else { return };
        let message = &*message;
        if message.err != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            let key = bytes(message.key, message.key_len).map(<[u8]>::to_vec);
            let undelivered =
                Undelivered { code: message.err.into(), partition: message.partition, key, bytes: message.len };
            // A batch is refused as a whole: the longest of its records is why.
            let mut said = context.said();
            let longer = |first: &Undelivered| {
                let too_large = first.code == Code::MessageSizeTooLarge && first.code == undelivered.code;
                too_large && undelivered.bytes > first.bytes
            };
            if said.undelivered.as_ref().is_none_or(longer) {
                said.undelivered = Some(undelivered);
            }
        }
        context.reported.fetch_add(1, Ordering::Release);
    }
}

/// # Safety
/// `data` is null or points to `length` bytes that live as long as the result is used.
unsafe fn bytes<'a>(data: *const c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: as the caller promises.
    (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data.cast(), length) })
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Consumer,
    Producer,
}

/// A connection to a cluster. All calls may come from any thread.
pub struct Client {
    rk: *mut rd_kafka_t,
    context: Arc<Context>,
}

// SAFETY: librdkafka's handles may be used from all threads at once, as its manual says; the context is Sync.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

/// A topic as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub partitions: i32,
    /// Stays the same for the life of the topic; a topic that is deleted and made again has another. `None`: the broker tells none.
    pub id: Option<String>,
}

fn c_text(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{text:?} has a NUL in it"))
}

fn millis(time: Duration) -> c_int {
    time.as_millis().clamp(1, c_int::MAX as u128) as c_int
}

fn checked(error: rd_kafka_resp_err_t) -> Result<(), Code> {
    match error {
        rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        error => Err(error.into()),
    }
}

/// Why a call of a transaction did not succeed.
#[derive(Clone, Debug)]
pub struct Failure {
    pub code: Code,
    pub reason: String,
}

impl From<Code> for Failure {
    fn from(code: Code) -> Failure {
        Failure { code, reason: code.to_string() }
    }
}

/// # Safety
/// `error` is null or an error that is ours, and is used no more.
unsafe fn transacted(error: *mut rd_kafka_error_t) -> Result<(), Failure> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: as the caller promises; its text is copied before it is destroyed.
    unsafe {
        let failure = Failure { code: rd_kafka_error_code(error).into(), reason: text(rd_kafka_error_string(error)) };
        rd_kafka_error_destroy(error);
        Err(failure)
    }
}

/// Where Java's client puts a key: murmur2.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    // SAFETY: the key outlives the call; the topic is not looked at by this function, nor what stands beside it.
    unsafe {
        rd_kafka_msg_partitioner_murmur2(
            ptr::null(),
            key.as_ptr().cast(),
            key.len(),
            partitions.max(1),
            ptr::null_mut(),
            ptr::null_mut(),
        )
    }
}

impl Client {
    /// A client with librdkafka's options. It connects when it is first used.
    ///
    /// # Errors
    /// What librdkafka says of an option.
    pub fn new(role: Role, options: &BTreeMap<String, String>, egress: &Egress) -> Result<Client, String> {
        let context =
            Arc::new(Context { egress: egress.clone(), said: Mutex::default(), reported: AtomicU64::default() });
        // SAFETY: plain calls as the manual has them: the configuration is made here and handed over to rd_kafka_new, which owns it if it
        // succeeds; the opaque is kept alive by the client, which ends librdkafka before it drops it.
        unsafe {
            let conf = rd_kafka_conf_new();
            let mut why = [0 as c_char; 512];
            for (name, value) in options {
                let set = c_text(name).and_then(|c_name| {
                    let value = c_text(value).map_err(|_| format!("the value of properties.{name} has a NUL in it"))?;
                    match rd_kafka_conf_set(conf, c_name.as_ptr(), value.as_ptr(), why.as_mut_ptr(), why.len()) {
                        rd_kafka_conf_res_t::RD_KAFKA_CONF_OK => Ok(()),
                        _ => Err(format!("properties.{name}: {}", text(why.as_ptr()))),
                    }
                });
                if let Err(error) = set {
                    rd_kafka_conf_destroy(conf);
                    return Err(error);
                }
            }
            rd_kafka_conf_set_opaque(conf, Arc::as_ptr(&context).cast_mut().cast());
            rd_kafka_conf_set_log_cb(conf, Some(on_log));
            rd_kafka_conf_set_error_cb(conf, Some(on_error));
            rd_kafka_conf_set_connect_cb(conf, Some(on_connect));
            let kind = match role {
                Role::Consumer => rd_kafka_type_t::RD_KAFKA_CONSUMER,
                Role::Producer => {
                    rd_kafka_conf_set_dr_msg_cb(conf, Some(on_delivery));
                    rd_kafka_type_t::RD_KAFKA_PRODUCER
                }
            };
            let rk = rd_kafka_new(kind, conf, why.as_mut_ptr(), why.len());
            if rk.is_null() {
                rd_kafka_conf_destroy(conf);
                return Err(text(why.as_ptr()));
            }
            if role == Role::Consumer {
                rd_kafka_poll_set_consumer(rk);
            }
            Ok(Client { rk, context })
        }
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The numbers of brokers and of topics that the credentials can see.
    ///
    /// # Errors
    /// The cluster cannot be reached, or refuses.
    pub fn cluster(&self, wait: Duration) -> Result<(usize, usize), Code> {
        // SAFETY: the metadata is given back after use, and looked at in between only.
        unsafe {
            let mut metadata = ptr::null();
            checked(rd_kafka_metadata(self.rk, 1, ptr::null_mut(), &mut metadata, millis(wait)))?;
            let found = ((*metadata).broker_cnt as usize, (*metadata).topic_cnt as usize);
            rd_kafka_metadata_destroy(metadata);
            Ok(found)
        }
    }

    /// The number of partitions of a topic.
    ///
    /// # Errors
    /// Also of a topic that does not exist.
    pub fn partitions(&self, topic: &str, wait: Duration) -> Result<i32, Code> {
        let name = c_text(topic).map_err(|_| Code::InvalidTopic)?;
        // SAFETY: the topic handle and the metadata are given back after use, and looked at in between only.
        unsafe {
            let handle = rd_kafka_topic_new(self.rk, name.as_ptr(), ptr::null_mut());
            if handle.is_null() {
                return Err(Code::InvalidTopic);
            }
            let mut metadata = ptr::null();
            let answer = checked(rd_kafka_metadata(self.rk, 0, handle, &mut metadata, millis(wait)));
            let result = answer.and_then(|()| {
                let found = match (*metadata).topic_cnt {
                    1.. => &*(*metadata).topics,
                    _ => return Err(Code::UnknownTopicOrPartition),
                };
                checked(found.err)?;
                Ok(found.partition_cnt)
            });
            if !metadata.is_null() {
                rd_kafka_metadata_destroy(metadata);
            }
            rd_kafka_topic_destroy(handle);
            result
        }
    }

    /// What the cluster knows of a topic, with its id.
    pub fn describe(&self, topic: &str, wait: Duration) -> Result<Topic, Code> {
        let name = c_text(topic).map_err(|_| Code::InvalidTopic)?;
        // SAFETY: everything that is made here is destroyed here; what an event holds is looked at before the event is destroyed.
        unsafe {
            let queue = rd_kafka_queue_new(self.rk);
            let options = rd_kafka_AdminOptions_new(self.rk, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
            let mut why = [0 as c_char; 128];
            rd_kafka_AdminOptions_set_request_timeout(options, millis(wait), why.as_mut_ptr(), why.len());
            let mut names = [name.as_ptr()];
            let topics = rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            rd_kafka_DescribeTopics(self.rk, topics, options, queue);
            let event = rd_kafka_queue_poll(queue, millis(wait));
            let result = if event.is_null() {
                Err(Code::OperationTimedOut)
            } else {
                checked(rd_kafka_event_error(event)).and_then(|()| {
                    let answer = rd_kafka_event_DescribeTopics_result(event);
                    let mut count = 0;
                    let all = match answer.is_null() {
                        true => ptr::null_mut(),
                        false => rd_kafka_DescribeTopics_result_topics(answer, &mut count),
                    };
                    if all.is_null() || count == 0 {
                        return Err(Code::UnknownTopicOrPartition);
                    }
                    let found = *all;
                    let error = rd_kafka_TopicDescription_error(found);
                    if !error.is_null() {
                        checked(rd_kafka_error_code(error))?;
                    }
                    let mut partitions = 0;
                    rd_kafka_TopicDescription_partitions(found, &mut partitions);
                    let id = rd_kafka_TopicDescription_topic_id(found);
                    let id = (!id.is_null()).then(|| text(rd_kafka_Uuid_base64str(id)));
                    // All zeros: a broker before topics had ids.
                    let id = id.filter(|id| !id.is_empty() && id.bytes().any(|byte| byte != b'A'));
                    Ok(Topic { partitions: partitions as i32, id })
                })
            };
            if !event.is_null() {
                rd_kafka_event_destroy(event);
            }
            rd_kafka_TopicCollection_destroy(topics);
            rd_kafka_AdminOptions_destroy(options);
            rd_kafka_queue_destroy(queue);
            result
        }
    }

    /// A setting of a broker; `None` if it tells none of this name.
    pub fn broker_setting(&self, setting: &str, wait: Duration) -> Result<Option<String>, Code> {
        let wanted = c_text(setting).map_err(|_| Code::InvalidArgument)?;
        // SAFETY: everything that is made here is destroyed here; what metadata and events hold is looked at before they are given back.
        unsafe {
            let mut metadata = ptr::null();
            checked(rd_kafka_metadata(self.rk, 0, ptr::null_mut(), &mut metadata, millis(wait)))?;
            let broker = match (*metadata).broker_cnt {
                1.. => Some((*(*metadata).brokers).id.to_string()),
                _ => None,
            };
            rd_kafka_metadata_destroy(metadata);
            let broker = broker.and_then(|id| c_text(&id).ok()).ok_or(Code::BrokerNotAvailable)?;
            let queue = rd_kafka_queue_new(self.rk);
            let options = rd_kafka_AdminOptions_new(self.rk, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
            let mut why = [0 as c_char; 128];
            rd_kafka_AdminOptions_set_request_timeout(options, millis(wait), why.as_mut_ptr(), why.len());
            let asked = rd_kafka_ConfigResource_new(rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_BROKER, broker.as_ptr());
            let mut all = [asked];
            rd_kafka_DescribeConfigs(self.rk, all.as_mut_ptr(), all.len(), options, queue);
            let event = rd_kafka_queue_poll(queue, millis(wait));
            let result = if event.is_null() {
                Err(Code::OperationTimedOut)
            } else {
                checked(rd_kafka_event_error(event)).and_then(|()| {
                    let answer = rd_kafka_event_DescribeConfigs_result(event);
                    let mut count = 0;
                    let found = match answer.is_null() {
                        true => ptr::null_mut(),
                        false => rd_kafka_DescribeConfigs_result_resources(answer, &mut count),
                    };
                    if found.is_null() || count == 0 {
                        return Ok(None);
                    }
                    checked(rd_kafka_ConfigResource_error(*found))?;
                    let mut entries = 0;
                    let first = rd_kafka_ConfigResource_configs(*found, &mut entries);
                    for at in 0..entries {
                        let entry = *first.add(at);
                        if CStr::from_ptr(rd_kafka_ConfigEntry_name(entry)) == wanted.as_c_str() {
                            return Ok(Some(text(rd_kafka_ConfigEntry_value(entry))));
                        }
                    }
                    Ok(None)
                })
            };
            if !event.is_null() {
                rd_kafka_event_destroy(event);
            }
            rd_kafka_ConfigResource_destroy(asked);
            rd_kafka_AdminOptions_destroy(options);
            rd_kafka_queue_destroy(queue);
            result
        }
    }

    /// The first offset of a partition and the one behind its last (stable) record.
    pub fn watermarks(&self, topic: &str, partition: i32, wait: Duration) -> Result<(i64, i64), Code> {
        let name = c_text(topic).map_err(|_| Code::InvalidTopic)?;
        let (mut low, mut high) = (0, 0);
        // SAFETY: the text and both numbers outlive the call.
        checked(unsafe {
            rd_kafka_query_watermark_offsets(self.rk, name.as_ptr(), partition, &mut low, &mut high, millis(wait))
        })?;
        Ok((low, high))
    }

    /// Where an assigned partition ended when it was fetched last; asks nobody. `None`: it was not fetched yet.
    pub fn end_seen(&self, topic: &str, partition: i32) -> Option<i64> {
        let name = c_text(topic).ok()?;
        let (mut low, mut high) = (-1, -1);
        // SAFETY: the text and both numbers outlive the call.
        checked(unsafe { rd_kafka_get_watermark_offsets(self.rk, name.as_ptr(), partition, &mut low, &mut high) })
            .ok()?;
        (high >= 0).then_some(high)
    }

    /// The offset of the first record of each partition with this timestamp (milliseconds) or a later one; `None` where there is none.
    pub fn offsets_for_time(
        &self,
        partitions: &[(String, i32)],
        timestamp_ms: i64,
        wait: Duration,
    ) -> Result<Vec<Option<i64>>, Code> {
        let asked: Vec<(String, i32, i64)> =
            partitions.iter().map(|(topic, partition)| (topic.clone(), *partition, timestamp_ms)).collect();
        let list = List::new(&asked)?;
        // SAFETY: the list is ours and outlives the call.
        checked(unsafe { rd_kafka_offsets_for_times(self.rk, list.0, millis(wait)) })?;
        partitions
            .iter()
            .map(|(topic, partition)| {
                let name = c_text(topic).map_err(|_| Code::InvalidTopic)?;
                // SAFETY: the element belongs to the list and is looked at while it lives.
                let (error, offset) = unsafe {
                    let found = rd_kafka_topic_partition_list_find(list.0, name.as_ptr(), *partition);
                    assert!(!found.is_null(), "what was put into the list is in it");
                    ((*found).err, (*found).offset)
                };
                checked(error)?;
                Ok((offset >= 0).then_some(offset))
            })
            .collect()
    }

    /// Reads these partitions from these offsets on, and no others.
    pub fn assign(&self, partitions: &[(String, i32, i64)]) -> Result<(), Code> {
        let list = List::new(partitions)?;
        // SAFETY: the list is copied by the call.
        checked(unsafe { rd_kafka_assign(self.rk, list.0) })
    }

    /// Stops to fetch a partition.
    pub fn pause(&self, topic: &str, partition: i32) -> Result<(), Code> {
        let list = List::new(&[(topic.to_string(), partition, 0)])?;
        // SAFETY: the list is copied by the call.
        checked(unsafe { rd_kafka_pause_partitions(self.rk, list.0) })
    }

    /// What is fetched for the assigned partitions.
    pub fn fetched(self: &Arc<Client>) -> Fetched {
        // SAFETY: the queue is given back before the client ends, which it holds.
        let queue = unsafe { rd_kafka_queue_get_consumer(self.rk) };
        assert!(!queue.is_null(), "a consumer with a group has a queue");
        Fetched { queue, messages: vec![ptr::null_mut(); FETCH_RECORDS], _client: self.clone() }
    }

    /// A topic to produce to.
    pub fn target(self: &Arc<Client>, topic: &str) -> Result<Target, Code> {
        let name = c_text(topic).map_err(|_| Code::InvalidTopic)?;
        // SAFETY: the handle is given back before the client ends, which it holds.
        let handle = unsafe { rd_kafka_topic_new(self.rk, name.as_ptr(), ptr::null_mut()) };
        if handle.is_null() {
            return Err(Code::InvalidTopic);
        }
        Ok(Target { handle, client: self.clone() })
    }

    /// Gets the transactional id: fences every other producer of it, and ends the transaction that it left.
    pub fn init_transactions(&self, wait: Duration) -> Result<(), Failure> {
        // SAFETY: a plain call, whose error is ours.
        unsafe { transacted(rd_kafka_init_transactions(self.rk, millis(wait))) }
    }

    pub fn begin_transaction(&self) -> Result<(), Failure> {
        // SAFETY: a plain call, whose error is ours.
        unsafe { transacted(rd_kafka_begin_transaction(self.rk)) }
    }

    /// Makes the offset of a group, which needs no member, part of the open transaction.
    pub fn send_offset(&self, group: &str, topic: &str, offset: i64, wait: Duration) -> Result<(), Failure> {
        let list = List::new(&[(topic.to_string(), 0, offset)])?;
        let group = c_text(group).map_err(|_| Code::InvalidGroupId)?;
        // SAFETY: list and group are ours, outlive the call and are given back once; the error is ours.
        unsafe {
            let member = rd_kafka_consumer_group_metadata_new(group.as_ptr());
            let sent = rd_kafka_send_offsets_to_transaction(self.rk, list.0, member, millis(wait));
            rd_kafka_consumer_group_metadata_destroy(member);
            transacted(sent)
        }
    }

    pub fn commit_transaction(&self, wait: Duration) -> Result<(), Failure> {
        // SAFETY: a plain call, whose error is ours.
        unsafe { transacted(rd_kafka_commit_transaction(self.rk, millis(wait))) }
    }

    /// The offset that the group of this consumer has committed for partition 0 of a topic.
    pub fn committed(&self, topic: &str, wait: Duration) -> Result<Option<i64>, Code> {
        let list = List::new(&[(topic.to_string(), 0, -1)])?;
        let name = c_text(topic).map_err(|_| Code::InvalidTopic)?;
        // SAFETY: the list is ours and outlives the call; the element belongs to it and is looked at while it lives.
        let (error, offset) = unsafe {
            checked(rd_kafka_committed(self.rk, list.0, millis(wait)))?;
            let found = rd_kafka_topic_partition_list_find(list.0, name.as_ptr(), 0);
            assert!(!found.is_null(), "what was put into the list is in it");
            ((*found).err, (*found).offset)
        };
        // The call succeeds also where the partition does not.
        checked(error)?;
        Ok((offset >= 0).then_some(offset))
    }

    /// Serves what there is to be heard: confirmations of deliveries, errors. Returns after the first, or when the time is over.
    pub fn poll(&self, wait: Duration) {
        // SAFETY: a plain call.
        unsafe { rd_kafka_poll(self.rk, wait.as_millis().min(c_int::MAX as u128) as c_int) };
    }

    /// Sends what waits for company and serves confirmations, until nothing is under way or the time is over.
    pub fn drain(&self, wait: Duration) {
        // SAFETY: a plain call. Its answer is only whether everything is confirmed, which the context knows better.
        unsafe { rd_kafka_flush(self.rk, millis(wait)) };
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: the handle is used no more; the call ends all threads that call back, so that the context may go after it. Records that
        // are not delivered are dropped: whoever needs them has waited for them. A consumer is no member of its group, so none to leave.
        unsafe {
            rd_kafka_purge(self.rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
            rd_kafka_destroy_flags(self.rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
        }
    }
}

/// A list of partitions with offsets.
struct List(*mut rd_kafka_topic_partition_list_t);

impl List {
    fn new(partitions: &[(String, i32, i64)]) -> Result<List, Code> {
        // SAFETY: what `add` gives belongs to the list and is written before the next call.
        unsafe {
            let list = List(rd_kafka_topic_partition_list_new(partitions.len() as c_int));
            for (topic, partition, offset) in partitions {
                let name = c_text(topic).map_err(|_| Code::InvalidTopic)?;
                (*rd_kafka_topic_partition_list_add(list.0, name.as_ptr(), *partition)).offset = *offset;
            }
            Ok(list)
        }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: it is ours alone.
        unsafe { rd_kafka_topic_partition_list_destroy(self.0) }
    }
}

/// Records taken at once, at most.
const FETCH_RECORDS: usize = 4096;
/// After the first record of a lull, others may come for so long: single records would each become a batch.
const GATHER: Duration = Duration::from_millis(1);

/// The queue of what was fetched.
pub struct Fetched {
    queue: *mut rd_kafka_queue_t,
    messages: Vec<*mut rd_kafka_message_t>,
    _client: Arc<Client>,
}

// SAFETY: it is used by one thread at a time, and librdkafka does not care which.
unsafe impl Send for Fetched {}

/// A record, or what there is to know instead of one.
pub struct Record<'a> {
    message: &'a rd_kafka_message_t,
}

impl Fetched {
    /// Gives what has been fetched; waits at most so long if there is nothing. Returns how many records and notices there were.
    pub fn take(&mut self, wait: Duration, mut each: impl FnMut(Record<'_>)) -> usize {
        let mut first = 0;
        // SAFETY: librdkafka fills at most as many places as there are, with messages that are ours until we destroy them, each once.
        unsafe {
            let ready = |messages: &mut [*mut rd_kafka_message_t], wait_ms: c_int, queue: *mut rd_kafka_queue_t| {
                let count = rd_kafka_consume_batch_queue(queue, wait_ms, messages.as_mut_ptr(), messages.len());
                // Below 0 are errors of the call's arguments only.
                usize::try_from(count).unwrap_or(0)
            };
            let mut count = ready(&mut self.messages, 0, self.queue);
            if count == 0 {
                let message = rd_kafka_consume_queue(self.queue, millis(wait));
                if message.is_null() {
                    return 0;
                }
                self.messages[0] = message;
                first = 1;
            }
            count += first;
            if first == 1 {
                count += ready(&mut self.messages[1..], millis(GATHER), self.queue);
            }
            for at in 0..count {
                let message = std::mem::replace(&mut self.messages[at], ptr::null_mut());
                each(Record { message: &*message });
                rd_kafka_message_destroy(message);
            }
            count
        }
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        // SAFETY: it is ours, and the client still lives.
        unsafe { rd_kafka_queue_destroy(self.queue) }
    }
}

impl Record<'_> {
    /// Why this is no record, if it is none.
    pub fn error(&self) -> Option<Code> {
        checked(self.message.err).err()
    }

    /// What librdkafka says of the error.
    pub fn explanation(&self) -> String {
        // SAFETY: the message lives, and its text is copied.
        unsafe { text(rd_kafka_message_errstr(self.message)) }
    }

    pub fn topic(&self) -> String {
        match self.message.rkt.is_null() {
            true => String::new(),
            // SAFETY: the handle belongs to the message, and its text is copied.
            false => unsafe { text(rd_kafka_topic_name(self.message.rkt)) },
        }
    }

    /// The same for all records of a topic, and cheap; not to be kept for longer than the client.
    pub fn topic_mark(&self) -> usize {
        self.message.rkt as usize
    }

    pub fn partition(&self) -> i32 {
        self.message.partition
    }

    pub fn offset(&self) -> i64 {
        self.message.offset
    }

    pub fn value(&self) -> Option<&[u8]> {
        // SAFETY: the message owns its bytes and lives as long as this.
        unsafe { bytes(self.message.payload, self.message.len) }
    }

    pub fn key(&self) -> Option<&[u8]> {
        // SAFETY: as above.
        unsafe { bytes(self.message.key, self.message.key_len) }
    }

    /// Milliseconds since 1970, and whether the broker set it; `None`: the record has none.
    pub fn timestamp(&self) -> Option<(i64, bool)> {
        let mut kind = rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message lives.
        let timestamp = unsafe { rd_kafka_message_timestamp(self.message, &mut kind) };
        match kind {
            rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => None,
            kind => Some((timestamp, kind == rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME)),
        }
    }

    /// Gives each header, in order.
    pub fn headers(&self, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        // SAFETY: headers belong to the message and are looked at while it lives.
        unsafe {
            let mut headers = ptr::null_mut();
            if rd_kafka_message_headers(self.message, &mut headers) != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            let mut at = 0;
            while rd_kafka_header_get_all(headers, at, &mut name, &mut value, &mut size)
                == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                each(CStr::from_ptr(name).to_bytes(), bytes(value, size));
                at += 1;
            }
        }
    }
}

/// A topic that is written.
pub struct Target {
    handle: *mut rd_kafka_topic_t,
    client: Arc<Client>,
}

// SAFETY: topic handles may be used from all threads.
unsafe impl Send for Target {}

/// A record to be written.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    /// `None`: by the key.
    pub partition: Option<i32>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970; `None`: now.
    pub timestamp_ms: Option<i64>,
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl Target {
    /// Gives a record to the client, which copies it.
    ///
    /// # Errors
    /// [`Code::QueueFull`]: poll, and give it again. Others are final.
    pub fn send(&self, record: &Outgoing<'_>) -> Result<(), Code> {
        let pointer = |bytes: Option<&[u8]>| match bytes {
            None => (ptr::null_mut::<c_void>(), 0),
            Some(bytes) => (bytes.as_ptr().cast_mut().cast(), bytes.len()),
        };
        let ((value, value_len), (key, key_len)) = (pointer(record.value), pointer(record.key));
        // SAFETY: the arguments are pairs of a tag and what it stands for, as the manual has them; the bytes are copied by the call; headers
        // are the client's when it succeeds, and destroyed here when it fails.
        unsafe {
            let mut headers = ptr::null_mut();
            if !record.headers.is_empty() {
                headers = rd_kafka_headers_new(record.headers.len());
                for (name, value) in record.headers {
                    let (value, size) = pointer(*value);
                    rd_kafka_header_add(headers, name.as_ptr().cast(), name.len() as isize, value, size as isize);
                }
            }
            let error = rd_kafka_producev(
                self.client.rk,
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT,
                self.handle,
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION,
                record.partition.unwrap_or(-1),
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS,
                RD_KAFKA_MSG_F_COPY,
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE,
                value,
                value_len,
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY,
                key,
                key_len,
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP,
                record.timestamp_ms.unwrap_or(0),
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS,
                headers,
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_END,
            );
            let sent = checked(error);
            if sent.is_err() && !headers.is_null() {
                rd_kafka_headers_destroy(headers);
            }
            sent
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // SAFETY: it is ours, and the client still lives.
        unsafe { rd_kafka_topic_destroy(self.handle) }
    }
}
