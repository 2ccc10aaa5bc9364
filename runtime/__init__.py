"""How programs run: every module, in the order that a message walks through them.

Not for users: programs import `skerry`. Written by `python -m tests.house.spine`.

api/    What programs are written in; imported as `skerry`.
    entity.py         Entity: fields, a key, handlers, a schema; a plain object that can be tested alone.
    entity_type.py    EntityType: the stored form of an entity class, which its metaclass makes.
    annotations.py    Annotations: the types that a class or a function names, alike on every Python.
    shapes.py         Shapes: rules that say whether a column of values comes back from msgpack unchanged.
    roundtrip.py      Round trip: whether a value, once stored or sent, comes back unchanged.
    limits.py         Limits: how large a key and a message may be.
    arguments.py      Arguments: checked where a verb is called, written as bytes, and read back.
    handler.py        Handler: one method of an entity class, as messages reach it.
    message.py        Message: what is sent, as a value; and what a program names when it sends.
    turn.py           Turn: all that one handler run may read and leave behind; the seam of the two layers.
    asked.py          Asks under way in a turn: the handlers that an ask's outcomes are for, and how long it waits.
    verbs.py          The verbs of a turn: each writes one intention on the Turn, which commits as a whole.
    portable.py       Carries an app by value, for a notebook or a function whose classes no worker can import.
    app.py            App: the entity types, outputs and streams that run together, and their checks.
    host.py           Host: what the public layer asks of the runtime, and the one place where it reaches it.
    errors.py         Errors: everything that skerry raises on purpose, by whose fault it is.
    pytest_plugin.py  Fixtures for pytest: an app that runs, and an app under simulated faults.

api/stream/    Streams, from declaration to passes over lists.
    builder.py     Stream and Keyed: the chain of calls by which a program declares a graph.
    ends.py        Source and Sink: what the two ends of a stream promise.
    outputs.py     Output: a named way out for the items that entities emit.
    graph.py       The graph of an app's streams: frozen nodes, each with a stable name.
    item_types.py  What the items of a stage are, as far as the program says so in annotations.
    compile.py     Compiles a graph into passes over lists, so that none of our code runs once an item.
    columns.py     Columns: what passes over many items make of them, one column for each of their ends.
    changes.py     Change: what a commit made of an entity, as an item of `app.changes(…)`.
    keyed.py       Stages that keep something, as the entities that they are.
    outlet.py      Outlet: an output, the passes over what is emitted to it, and its sinks.

api/client/    What a caller outside uses.
    blocking.py  Client: an `AsyncClient` on a thread of its own, for programs that do not use asyncio.
    aio.py       AsyncClient: the one implementation of a caller's verbs ask, send, get and scan.
    batch.py     Batch: the many requests of one `ask_many`, pipelined, with little work for each.
    outcomes.py  Outcomes: the reply or exception that comes back for a request.
    requests.py  Requests: the entity, handler and arguments that a caller names, checked and as bytes.

api/testing/    What a program's tests use.
    observed.py    One entity in one turn, without an app, and what it leaves behind.
    harness.py     Harness: an app in the test's own process, one step at a time.
    simulation.py  Simulation: an app on simulated shards, network, disks and clocks, with faults from a seed.
    faults.py      Faults: how often things go wrong in a simulation.
    simulated.py   A simulated app, as tests look into it: its states, outputs, dead letters and replies.

api/sources/    What reads items.
    generate.py    Generate: a source of items that a function makes.
    lines.py       LineFiles and TextFiles: files whose lines are items.
    json_lines.py  JsonLines: a source of files with a JSON value on each line.
    reading.py     Reads a file line by line from a position, if it still is the file that was read before.
    paths.py       Paths of source files: what patterns find, and the names that files have as partitions.
    csv.py         Csv: a source of the rows of CSV files.
    packed.py      Packed files: gzip and Zstandard, which are unpacked while they are read.

api/sinks/    What writes items.
    json_lines.py  JsonLines: a sink that writes a folder of files with a JSON value on each line.
    csv.py         Csv: a sink that writes a folder of CSV files.
    folder.py      RowFolder: a folder of files to which rows are appended, each exactly once.
    printing.py    Print: a sink that prints items.
    text.py        Text: a sink that writes a folder of text files, an item on each line.

runtime/    How programs run; imported as `skerry.runtime`.
    config.py       How an app is run: one tree of settings, built where a program comes in and handed down whole.
    description.py  The app's description, and who runs it: what all processes of an app agree on.
    ports.py        The ports: what core, worker and supervisor need from the outside, each with its promises.
    as_json.py      JSON of records that name files: a file's name need not be UTF-8, as msgspec's JSON has to be.
    causes.py       Explains an error to a person: a sentence with its cause and the next step, and an exit code.
    forks.py        Keeps forked children out of our affairs: they lose our descriptors and treat signals normally.
    printable.py    Makes text safe to print on a terminal: nothing in it moves the cursor, hides or forges a line.
    private.py      Keeps an app's folders private: its data, its logs and its sockets.

runtime/app/    An app starts, and is watched.
    ends.py         Acts on the end of a worker by itself: it is started again, or the app ends, and says why.
    launch.py       Runs the apps of programs, and connects programs to apps that run.
    load.py         Loads the app that a target names: `module:app`, `package.module`, `file.py` or `file.py:app`.
    background.py   Runs a supervisor as a process of its own, beside the program that asks for it: `app.running()`.
    supervisor.py   Runs an app: takes its data, keeps a worker per shard alive, and ends the workers in order.
    sockets.py      Where clients and workers find the processes of a run: a folder of sockets, and what is told of it.
    opening.py      Opens an app's data for a run, and refuses data that must not run.
    directory.py    The files that describe an app in its data directory.
    coordinator.py  The coordinator of an app on one machine: its data directory.
    membership.py   Makes sure that an app's description and its stores belong together, and removes old stores.
    placer.py       Decides how many shards an app has, which slots each serves, and the core of each worker.
    homes.py        Decides on which host of a cluster each shard lives, and how many shards there are.
    register.py     The description of the app that a supervisor runs, and its changes.
    housing.py      Gives shards their homes on the hosts of a cluster, as the one that leads.
    part.py         The part of this process in its app: it leads, or follows another host that does.
    crew.py         The workers of this host: one per shard that lives here, started again and again.
    linking.py      The link of this host, as a process beside the workers: started, told where everything is, heard.
    scaling.py      Leads an app to another number of shards, or slots to other owners, by versions of the placement.
    balancing.py    Decides which slots move from the busiest shard to the idlest, as their load asks for.
    scaler.py       Changes the number of workers, and owners of slots, while the app serves.
    room.py         Whether the disk has room for the rows of slots that move.
    rolling.py      Decides which worker is replaced next, when all are to run the program as it is now.
    restarter.py    Replaces all workers, one by one, with the program as it is now, while the app serves.
    trial.py        Tries the program as it is now, in a process of its own, before any worker is replaced.
    release.py      Finds out whether an app that runs can go on with its program as it is now; a process of its own.
    control.py      The supervisor's own door: a socket on which `skerry scale` and others tell it what to do.
    signals.py      Signals that tell an app to end, counted; and a bell that wakes whoever waits when one comes.
    reshard.py      Deals the slots of a stopped app out to new shards, when its shards have lost commits.
    backup.py       Backs a whole app up as of one moment, and restores apps from backups.
    transfer.py     Takes an app into a cluster, from a backup: its data there are the backup's.
    children.py     The worker processes: starts, watches and reaps them.
    questions.py    The conversation of a supervisor with its workers: rounds of questions, and the word to stop.
    watch.py        The policy of a supervisor: when a worker is restarted, isolated or given up, and when all is over.
    machine.py      The machine under the app: its cores, its limit on open files, and what it does to processes.
    hosted.py       What becomes of the stores of an app's members in a cluster, where a host has copies of them.
    members.py      What becomes of the stores of an app's members, on one machine.
    premises.py     Where an app lives: on this machine, or in a cluster.

runtime/worker/    A process around one shard.
    assignment.py  A worker's assignment: its shard, what it has to know of the app, and the exit codes of its end.
    process.py     A worker's process: one shard on its real ports, and the poll that wakes its driver.
    takeover.py    A worker takes its shard over: a new epoch is in the log before anything leaves.
    driver.py      The loop around one shard, written once: a worker's process and the simulator both run it.
    pace.py        The size of the next batch: as large as its time budget allows.
    stopwatch.py   Measures how long a batch takes, by the clock and without the time spent waiting for a core.
    meter.py       Measures how busy a worker is, and which slots and entities make it so.
    heartbeat.py   The heartbeat of a worker: a page of a file that its supervisor reads, even after the worker's end.
    copies.py      Copies of a store for backups, made by a thread while turns go on.
    sinks.py       Writes the items of outputs to sinks, on a thread per sink, so that the worker never waits.
    ports.py       What the driver of a shard stands on, each port with its promise.
    leased.py      A worker answers only as long as its host holds the app's lease.
    sources.py     Reads partitions of sources, batch by batch, so that the worker never waits.

runtime/client/    A caller's end of the lines.
    questions.py   Questions to a worker itself: a state, a page of a scan, how it is doing.
    session.py     The caller's end of exactly once: numbers requests, sends them again, never doubles one.
    catalogue.py   What an app offers its callers: entity types, their handlers, the slot of each key.
    pending.py     One request of a caller, from when it is made until somebody is told its outcome.
    window.py      One shard as a caller sees it: which requests wait, which are in flight, how many may be.
    connection.py  A caller's connection to a running app, on an asyncio loop.
    line.py        One line to one worker's listener, on an asyncio loop: sends, hears, and connects again.
    outpost.py     A folder in which a client of a cluster finds the app as if it ran here.
    reads.py       What a caller reads: states, counts and dead letters, while slots move between the shards.
    walk.py        A walk over slots, each read once, wherever they are by then.

runtime/gateway/    A worker's end of them.
    channel.py    Messages over a stream socket, each sent and received whole, without ever blocking.
    knock.py      Proof of who is at the other end of a line: both ends know the app's secret.
    places.py     Where the processes of a host listen for callers: names in its folder of sockets.
    protocol.py   The protocol between callers and workers: its messages, and what they mean to a worker.
    listener.py   The worker's end of the clients' lines: many callers, one list of events for the shard.
    inquiries.py  Questions to a worker that are no messages to an entity: states, counts, dead letters.
    looks.py      Looks at a shard's newest sealed rows: states, counts, dead letters, in slices.

runtime/core/    The core: no I/O, no clock, no thread.
    outcomes.py    From an ask to its outcome, and from the outcome to the handler that waits for it.
    events.py      The core's vocabulary: every event that reaches a shard, every effect that it asks for.
    stored.py      Stored bytes, split without decoding their values: an array of states, a state's schema id.
    settings.py    Who a shard is, the app that it runs, and what it holds at most.
    demand.py      What a shard and its driver agree on for each batch: how much it takes, what came of it.
    clock.py       When a shard believes the wall clock: a leap ahead is taken for a mistake.
    gate.py        The gate to the outside: what a batch says leaves when its commit is durable.
    sealing.py     What a batch leaves behind: encoded states, frames with their numbers, rows, in one commit.
    shard.py       The life of a batch: events in, turns, one commit, effects out.
    placement.py   Who owns each slot, at one version: what all shards of an app agree on.
    ownership.py   Where a key lives: the slot of an entity, and the shard that serves a slot.
    moves.py       Moves slots between shards while messages flow, by versions of the placement.
    copying.py     Copies the rows of slots to their next owners while they are served, and deletes them behind.
    progress.py    How far the moves of slots are at one shard: a row, which outlives the shard's process.
    handover.py    The rows of a slot as they travel: cut into chunks at one shard, taken at the other.
    wire.py        The wire format between shards: packets, frames, and the runs of messages in a frame.
    schedule.py    What waits for a batch, and what the next batch takes of it.
    dispatch.py    Hands each piece of a batch's work to the room that knows it, in order.
    observer.py    A dispatch that tells an observer which messages are sent and which run; production has none.
    clients.py     Requests of clients: judged, run together where that is safe, remembered, answered.
    items.py       Items of sources: the stages that they pass, their messages, and the position, in one commit.
    delivery.py    Brings each message to its turn, whatever way it came: frames, timers, sources, other turns.
    flows.py       What flows on from turns: replies through the stages behind their own, and changes of entities.
    routing.py     Which way a message goes: to an entity here, by the shard's own stream, to a peer, or to wait.
    buffer.py      Messages on their way, in order, as runs of one handler.
    executor.py    Runs turns: many together while all goes well, each alone where one may fail.
    loops.py       The loop over the messages of a column: one for each shape of arguments, made from one text.
    cache.py       The entities that a shard holds in memory, and which of them the open batch changed.
    handlers.py    The handlers of this release, and what stored messages of older releases meant.
    schemas.py     Descriptions of the ids in stored bytes: fields of states, handlers, their parameters.
    results.py     What a turn comes to: done, refused or broken; and an error in words that can be kept.
    intentions.py  What a turn left behind becomes messages, timers, asks and items, in its order.
    ids.py         Ids that are never used again: (shard, epoch, commit, index).
    operations.py  An operator's commands on dead letters: retry or drop, in one commit with what follows.
    commit.py      The commit record of a batch: its bytes, its chain of checksums, and the keys of rows.

runtime/core/tables/    What a shard remembers, a kind of row a file.
    outputs.py       Items on their way to sinks: each numbered once, and kept until its sink has it.
    requests.py      A client's request seen before? Its first outcome, kept with the target's slot.
    waiting.py       Requests that wait for an earlier one of their session, which is on its way or lost.
    sessions.py      A client's session as one shard knows it: which requests were answered, and how.
    names.py         Requests with an idempotency key: the first outcome of each, kept for a day.
    retention.py     How long outcomes are kept that nobody confirms, and how old ones are found.
    positions.py     How far each partition of a source has been read.
    asks.py          What an entity has asked and not been told yet.
    timers.py        Messages that wait for a time: named timers, send_later, ask time-outs.
    dead_letters.py  Dead letters: messages that were refused or failed with nobody to tell.
    table.py         The life of a table: loaded, changed by a batch, sealed with it or thrown away with it.

runtime/core/streams/    Ordered messages between two shards.
    links.py      All streams of a shard: what is sealed, what arrives, and what each packet leads to.
    handshake.py  What a packet is answered with: a table of its kind, and of the lives that it names.
    cuts.py       Cuts for backups: which is the newest, and which another may name.
    outboxes.py   Outboxes of all streams: which hold frames without an ack, and whether that is too much.
    speech.py     What a shard says to its peers: packets, each with an ack, and the acks that are still owed.
    outbound.py   The sending end of one stream: numbers, outbox, credit, resume.
    inbound.py    The receiving end of one stream: which frame is next, and what may be acked.
    parts.py      A frame that is run in parts: its messages, decoded once, of which each part is a slice.
    arrivals.py   Frames that have come and wait to be run: whose turn it is, and who has to wait.

runtime/store/    Down to the disk.
    store.py         The store of a shard: its rows, its log, and the thread that joins them.
    memtable.py      The memtable: rows that are sealed and not in the B-tree yet.
    rows.py          A shard's rows: the memtable above the tree, read as one.
    committer.py     The thread that makes commits durable, over any log.
    segments.py      A shard's log as a row of files, the segments.
    segment.py       One file of the log, a segment.
    checkpointer.py  When a checkpoint begins, how fast it goes, and its steps on the committer's thread.
    checkpoint.py    A checkpoint: the rows of a frozen layer of the memtable, carried down to the tree in slices.
    tree.py          Rows in the B-tree: each with a checksum over key and value, each slot with a fingerprint.
    environment.py   A store's LMDB environment: opened, checked, copied.
    lock.py          The lock on a store's folder: one process owns a store at a time.
    quota.py         The disk quota of a store, and what it means when the system gives the store no more room.
    disk.py          Bytes on their way to the disk: written whole, synced, and sealed behind a checksum.
    label.py         A store's label: what the store says of itself, in a file beside its tree.
    sealed_file.py   Small files in which every bit counts: JSON behind its checksum, written whole or not at all.
    check.py         Verifies a store that is not in use: each record's chain, each row's checksum, each slot's count.

runtime/cluster/    An app on several machines, over NATS JetStream.
    coordinator.py       The coordinator of an app on several hosts: a bucket in NATS, and this host's data directory.
    settings.py          How an app's bucket is set up, and what is wrong with one that was set up otherwise.
    parts.py             A snapshot in parts: files are cut, and put together by digests.
    names.py             What an app's streams, subjects and keys are called in NATS.
    engine.py            The connection to NATS: an event loop on a thread of its own, which other threads ask.
    nodes.py             The NATS servers of a folder: a cluster on this machine, for trying things out.
    node.py              One NATS server on this machine: its process, its files, and what it says.
    server.py            The program `nats-server`: where it is, whether it will do, and what a node of ours is told.
    addresses.py         Where the NATS servers on this machine listen: three ports of loopback for each.
    monitor.py           What a NATS server tells about itself on its monitoring port: an HTTP request, a JSON answer.
    probe.py             Whether a cluster takes a stream that all of its nodes keep: one is made, and deleted.
    joining.py           A host joins a cluster: it finds servers that will do, and the app's bucket.
    lease.py             Which hosts an app has: what a host's key says, when its host counts as gone, and who leads.
    presence.py          A host's presence in a cluster: its lease is renewed, and the other hosts are looked at.
    described.py         The description of an app in its bucket, and this host's copy of it.
    keys.py              What an app's processes know of each other by, in the app's bucket.
    bucket.py            An app's bucket in NATS: a few keys, each changed by compare-and-set.
    snapshots.py         Snapshots of a shard's store in NATS, and the pointer that says which of them count.
    snapshot_pointer.py  The key that says which snapshots of a shard count: it moves forward only.
    snapshot_stream.py   What is asked of the stream that holds the parts of snapshots.
    asking.py            Asks the servers what may be asked twice, again and again for a while.
    appending.py         One append to a replicated log, whose outcome may be unknown for a while.
    local.py             Opens a shard's store on a host of a cluster, where it is a copy of what the cluster has.
    log.py               A shard's log in a cluster: each record is in the replicated stream before it counts.
    replica.py           What a worker has to do with the cluster: its shard's log, and snapshots of its store.
    stream.py            A log in JetStream: one stream with one subject, replicated, appended to by expectation.

runtime/transport/    Across to the next shard.
    pipe.py   ZeroMQ as a mere pipe between shards: bytes in, maybe bytes out.
    curve.py  Keys by which ZeroMQ encrypts a connection and its ends know each other: CURVE.

runtime/cli/    The launcher, a file a command.
    message.py   `skerry ask` and `skerry send`: send one message to a running app from the shell.
    settings.py  The settings that have a flag, a variable and a key: one table, from which all three come.
    progress.py  Shows how far a running app has come: a bar on a terminal, a line now and then elsewhere.
    hosts.py     `skerry leave`, and what other commands do on a host of a cluster.
    cluster.py   `skerry cluster up`, `down` and `status`: NATS servers on this machine, for trying things out.
    dead.py      `skerry dead`: list the messages that were refused or failed, show, retry or drop them.
    keep.py      `skerry backup` and `skerry restore`: copy an app's data as of one moment, and run the copy.
    operate.py   `skerry status`, `stop` and `check`: look at an app, end it, verify its stores.
    read.py      `skerry get`, `export` and `count`: read the committed state of a running or a stopped app.
    restart.py   `skerry restart`: the workers run the program as it is now, while the app serves.
    run.py       `skerry run`: run an app on all cores, show its progress, sum it up.
    scale.py     `skerry scale`: another number of workers, while the app serves.
    workers.py   Asks the workers of a running app, for commands that look at them or tell them something.

runtime/simulator/    The same core on a simulated network, disk and clock.
    lines.py     The lines between simulated callers and doors, and what callers were told.
    host.py      A simulated host: runs the shards whose home it is, and leads when it has taken that place.
    faults.py    What goes wrong in the simulated world, beside packets: processes, disks, clocks, lines.
    backup.py    Backups of a simulated app: a cut, which every shard takes when it hears of it, and a restore.
    machine.py   A simulated worker: the production shard and its driver, on a disk that survives them.
    sinks.py     Simulated sinks: what came out of each output, and whether its numbers hold together.
    presence.py  The lease of a simulated host: it is renewed, and the other hosts are looked at.
    hosts.py     An app of shards on several simulated hosts, with leases, replicated logs, and what befalls them.
    outages.py   What goes wrong with simulated hosts, and with the servers that they need.
    leading.py   How a simulated leader moves slots between shards that live on several hosts.
    tenant.py    A simulated worker on a host of a cluster: its log is asked of the servers, and takes its time.
    servers.py   Simulated NATS servers: logs and keys, as hosts see them who ask over a network that loses things.
    disk.py      A simulated disk: keeps what was synced, and forgets the rest on a crash.
    callers.py   Simulated clients: the production session over lines that break.
    cluster.py   n shards on a simulated network, disk and clock, driven by one seed.
    keeper.py    The simulated supervisor: decides by the production code when workers start, and when all is over.
    ledger.py    Keeps its own books of what was sent and what was run, and compares them: once, and in order.
    mover.py     Changes the number of simulated shards, and who owns which slots, while they run or in between.
    network.py   The simulated network: whatever travels arrives later, and may be lost, repeated or overtaken.
    picture.py   A simulated run as a picture: a lane per shard, time to the right, in one SVG file.
    sources.py   Simulated reading: the app's own sources, a few items at a time, and now and then read again.
    stranger.py  A stranger on the simulated network: packets that no shard of the app sends.
"""
