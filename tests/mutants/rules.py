"""The planted bugs: each breaks one rule of the protocol by a small change to a copy of the code.

A text that no longer stands in the code, or stands there twice, is an error: the rule moved,
and its mutant must follow it.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A planted bug."""

    name: str
    file: str
    text: str
    instead: str


MUTANTS = [
    Mutant(
        "a reply leaves before its commit is durable",
        "core/shard.py",
        "        if held.no <= self.durable:\n            assert not held.sealed",
        "        if held.replies:\n            self._reply(held.replies)\n"
        "            held = _Held(held.no, [], held.sealed, held.taken)\n"
        "        if held.no <= self.durable:\n            assert not held.sealed",
    ),
    Mutant(
        "a frame leaves before its commit is durable",
        "core/streams/outbound.py",
        "        self._bodies_bytes += len(body)\n        return frame",
        "        self._bodies_bytes += len(body)\n        self.durable = self.sealed\n        return frame",
    ),
    Mutant(
        "an ack covers what is only received",
        "core/streams/links.py",
        "            stream.durable,\n            stream.credit,\n",
        "            stream.received,\n            stream.credit,\n",
    ),
    Mutant(
        "an ack covers what is taken, not durable",
        "core/streams/links.py",
        "            stream.durable,\n            stream.credit,\n",
        "            stream.taken,\n            stream.credit,\n",
    ),
    Mutant(
        "the outbox forgets what was sent, not what was acked",
        "core/streams/outbound.py",
        "            self.sent = frame.seq\n            yield frame",
        "            self.sent = frame.seq\n            yield frame\n            self.acked(frame.seq)",
    ),
    Mutant(
        "numbers are used again after a restart",
        "core/streams/outbound.py",
        "self.sealed, self.position = known.sealed, known.position",
        "self.sealed, self.position = known.released, known.released_position",
    ),
    Mutant(
        "the receiver's position is not in the commit of the turns",
        "core/streams/links.py",
        "        return [self.inbound[peer].row() for peer in dict.fromkeys(p.src for p in packets)]",
        "        return []",
    ),
    Mutant(
        "the receiver's position is one commit late",
        "core/streams/links.py",
        "        return [self.inbound[peer].row() for peer in dict.fromkeys(p.src for p in packets)]",
        "        late = getattr(self, 'late', [])\n"
        "        self.late = [self.inbound[peer].row() for peer in dict.fromkeys(p.src for p in packets)]\n"
        "        return late",
    ),
    Mutant(
        "a repeated frame is taken again",
        "core/streams/inbound.py",
        "        if packet.seq <= self.received:\n            return Verdict.REPEAT",
        "        if packet.seq < self.received:\n            return Verdict.REPEAT\n"
        "        if packet.seq == self.received and packet.seq:\n"
        "            self.received, self.taken = packet.seq - 1, self.taken - (not self.waiting)\n"
        "            return Verdict.TAKE",
    ),
    Mutant(
        "a gap is passed over",
        "core/streams/inbound.py",
        "        if packet.seq > self.received + 1:\n            return Verdict.GAP",
        "        if packet.seq > self.received + 1:\n"
        "            self.received = packet.seq - 1\n            self.taken = packet.seq - 1 - len(self.waiting)",
    ),
    Mutant(
        "a gap is dropped in silence",
        "core/streams/links.py",
        "return [*self._heard(packet), self._resume(peer, packet.seq)]",
        "return self._heard(packet)",
    ),
    Mutant(
        "silence is never asked about",
        "core/streams/links.py",
        "                if peer != self.me and owed and self._silent(stream):",
        "                if False and owed:",
    ),
    Mutant(
        "a peer that was pressed is never asked whether it still is",
        "core/streams/links.py",
        "[*self._unacked, *self._pressed.difference(self._unacked)]",
        "[*self._unacked]",
    ),
    Mutant(
        "a resume's ack is not heard",
        "core/streams/links.py",
        "        news = packet.ack > stream.released and self._release(stream, packet.ack)\n",
        "        news = packet.kind != Kind.RESUME and self._release(stream, packet.ack)\n",
    ),
    Mutant(
        "an ack that found no company is never said",
        "core/streams/links.py",
        "        if self._unsaid and steady_ns - self._unsaid_ns > ACK_NS:\n",
        "        if False:\n",
    ),
    Mutant(
        "an ack waits though its sender waits for credit",
        "core/streams/links.py",
        "        if stream.overdue:\n",
        "        if False:\n",
    ),
    Mutant(
        "a repeat is dropped in silence",
        "core/streams/links.py",
        "                self._owe_ack(stream)  # The one that was said may have been lost.\n",
        "                pass\n",
    ),
    Mutant(
        "an ack is over when an older life was told",
        "core/streams/links.py",
        "        if kind != Kind.HELLO and kind != Kind.FENCED:\n",
        "        if True:\n",
    ),
    Mutant(
        "a frame takes no ack along, and none is said later",
        "core/streams/links.py",
        "            stream.durable,\n            stream.credit,\n",
        "            0 if kind == Kind.FRAME else stream.durable,\n            stream.credit,\n",
    ),
    Mutant(
        "a hello does not say what its receiver has acked",
        "core/streams/links.py",
        "position=acked, body=self._incarnation",
        "position=0, body=self._incarnation",
    ),
    Mutant(
        "a hello's answer takes for lost what was sent behind it",
        "core/streams/links.py",
        "        outbound.resume(packet.seq, packet.checksum, packet.position)\n",
        "        outbound.resume(packet.seq, packet.checksum, outbound.sent)\n",
    ),
    Mutant(
        "what was lost before a hello is not sent again",
        "core/streams/links.py",
        "        outbound.resume(packet.seq, packet.checksum, packet.position)\n",
        "        outbound.resume(packet.seq, packet.checksum, 0)\n",
    ),
    Mutant(
        "nobody is greeted at the opening",
        "core/streams/links.py",
        "        for peer in self.inbound:\n            if peer != self.me:\n",
        "        for peer in self.inbound:\n            if False:\n",
    ),
    Mutant(
        "nobody is greeted when the first frame is durable",
        "core/streams/links.py",
        "            return self._hello(peer) if self._silent(stream) else []\n",
        "            return []\n",
    ),
    Mutant(
        "of a peer's frames that wait only the first is run",
        "core/intake.py",
        "        if stream.waiting:\n            self._streams.ready.append(stream)\n",
        "",
    ),
    Mutant(
        "a stale epoch of a sender is accepted",
        "core/streams/inbound.py",
        "        if packet.src_epoch > self.epoch or not self.epoch:\n"
        "            return Verdict.STRANGER\n"
        "        if packet.src_epoch < self.epoch:\n            return Verdict.FENCED\n",
        "",
    ),
    Mutant(
        "a packet of another incarnation is believed",
        "core/streams/links.py",
        "        if packet.incarnation != self._token:\n",
        "        if False:\n",
    ),
    Mutant(
        "a frame is taken before it is known to hold messages",
        "core/streams/links.py",
        "                    runs = wire.messages_of(packet)\n",
        "                    runs = []\n",
    ),
    Mutant(
        "epochs and cuts that cannot be are believed",
        "core/streams/links.py",
        "        if reason := self._unfit(packet):\n",
        "        reason = self._unfit(packet)\n        if reason and 'names a' not in reason:\n",
    ),
    Mutant(
        "a shard opens in its old epoch",
        "core/shard.py",
        "self.epoch = last.epoch + 1",
        "self.epoch = max(1, last.epoch)",
    ),
    Mutant(
        "an older life of a peer fences its successor's friends",
        "core/streams/links.py",
        "return [Stop(self._fenced(self.me, newest))] if self.epoch < newest else []",
        "return [Stop(self._fenced(self.me, newest))]",
    ),
    Mutant(
        "deletions of acked frames wait for the next frame of their stream",
        "core/streams/links.py",
        "        self._released[stream.peer] = stream\n",
        "",
    ),
    Mutant(
        "credit is not renewed after a restart",
        "core/streams/links.py",
        "        if packet.credit > stream.credit:\n",
        "        if packet.credit > stream.credit and packet.kind != Kind.RESUME:\n",
    ),
    Mutant(
        "a run of requests is not remembered",
        "core/clients.py",
        '        requests.ran(session, "done", run.numbers, slots, replies)\n',
        "",
    ),
    Mutant(
        "a request that is run alone is not remembered",
        "core/clients.py",
        "                    self._requests.ran(session, kind, (request.number,), (slot,), (body,))\n",
        "                    pass\n",
    ),
    Mutant(
        "requests are looked up without those of the open batch",
        "core/tables/requests.py",
        "        found = session.new.get(number) or session.rows.get(number)\n",
        "        found = session.rows.get(number)\n",
    ),
    Mutant(
        "a run of requests is not compared with those that ran",
        "core/tables/requests.py",
        "        if session.named or not session.rows.keys().isdisjoint(numbers):\n",
        "        if session.named:\n",
    ),
    Mutant(
        "a run of requests is not compared with the floors",
        "core/tables/requests.py",
        "        if not all(map(operator.gt, numbers, map(session.floors.__getitem__, slots))):\n"
        "            return False\n",
        "",
    ),
    Mutant(
        "a session that was silent for long is unknown",
        "core/tables/requests.py",
        "            self._away[session.id] = set(session.kept)\n",
        "            pass\n",
    ),
    Mutant(
        "a restart does not know which sessions have outcomes",
        "core/shard.py",
        "        self.requests.load(scan(Table.REQUEST))\n",
        "",
    ),
    Mutant(
        "a row of outcomes goes when the first of them is over",
        "core/tables/requests.py",
        "                    if max(kept.numbers) <= floor:\n"
        "                        yield Table.REQUEST",
        "                    if min(kept.numbers) <= floor:\n"
        "                        yield Table.REQUEST",
    ),
    Mutant(
        "a confirm forgets rows and raises no floor",
        "core/tables/requests.py",
        "        if not session.named and request.number <= session.floor_of(slot):\n"
        "            return None\n",
        "",
    ),
    Mutant(
        "the floor is raised past what has no outcome",
        "core/tables/requests.py",
        "                session.raised[slot] = floor\n",
        "                session.raised[slot] = floor + 3\n",
    ),
    Mutant(
        "a request does not wait for the one before it",
        "core/tables/requests.py",
        "        if previous and not session.has(previous) and previous > session.floor_of(slot):\n"
        "            return False\n",
        "",
    ),
    Mutant(
        "a run of requests does not wait for those before it",
        "core/tables/requests.py",
        "        return all(map(session.has, waits))\n",
        "        return True\n",
    ),
    Mutant(
        "requests that waited for one are forgotten when it has run",
        "core/tables/requests.py",
        "        return list(waiting.values())\n",
        "        return list(waiting.values())[:0]\n",
    ),
    Mutant(
        "more requests are taken in than there is room for",
        "core/shard.py",
        "            case Requested() if not self.intake.has_room():\n",
        "            case Requested() if False:\n",
    ),
    Mutant(
        "what waits for an earlier request is kept without bound",
        "core/tables/requests.py",
        "        elif self._held >= self._held_max or self._held_bytes >= self._held_bytes_max:\n",
        "        elif False:\n",
    ),
    Mutant(
        "a request waits for one that was answered and left no row",
        "core/clients.py",
        "                else:\n                    self._requests.settle(session, request.number)\n",
        "",
    ),
    Mutant(
        "a request waits for one that was refused as too old",
        "core/tables/requests.py",
        '            self.settle(session, request.number)\n            return Outcome("late")\n',
        '            return Outcome("late")\n',
    ),
    Mutant(
        "what waits for a confirmed request is kept for good",
        "core/tables/requests.py",
        "            if number <= min(upto, below.get(slot_of(request.type, request.key), upto)):\n",
        "            if False:\n",
    ),
    Mutant(
        "answers without a row are remembered without bound",
        "core/tables/requests.py",
        "        if len(settled) > SETTLED_MAX:\n",
        "        if False:\n",
    ),
    Mutant(
        "outcomes that nobody confirms are kept for a minute",
        "core/tables/requests.py",
        "        old_ns, prefix = now_ns - LIFETIME_NS, slot_prefix(slot)\n",
        "        old_ns, prefix = now_ns - IDLE_NS, slot_prefix(slot)\n",
    ),
    Mutant(
        "a look for old outcomes counts though its batch was thrown away",
        "core/tables/requests.py",
        "        self._looked_at = slot, gone - left\n",
        "        self._looked_at = slot, gone - left\n        self._looked_through += 1\n",
    ),
    Mutant(
        "credit counts what was taken, not what is durable",
        "core/streams/inbound.py",
        "        return self.durable_position + self._window\n",
        "        return self.taken_position + self._window\n",
    ),
    Mutant(
        "a small store is opened unread",
        "store/store.py",
        "            environment.verify_small()\n",
        "",
    ),
    Mutant(
        "what a client was told has failed can be retried",
        "core/clients.py",
        "                delivery.bury(handler, request.key, args, result, answered=request.reply)\n",
        "                delivery.bury(handler, request.key, args, result)\n",
    ),
    Mutant(
        "what was refused is tried again like what failed",
        "core/turns.py",
        "            if isinstance(result, Refused):\n                break\n",
        "",
    ),
    Mutant(
        "forget leaves what earlier turns have asked",
        "core/delivery.py",
        "        for ask in self.asks.take_all(name, key):\n",
        "        for ask in list[Ask]():\n",
    ),
    Mutant(
        "forget drops what its turn asks after it",
        "core/delivery.py",
        "            if asked is None or place < turn.forgotten_sends:\n",
        "            if asked is None or turn.forgotten:\n",
    ),
    Mutant(
        "forget keeps what its turn has asked before it",
        "core/delivery.py",
        "            if asked is None or place < turn.forgotten_sends:\n",
        "            if asked is None:\n",
    ),
    Mutant(
        "a turn that is tried again draws on behind its first try",
        "core/turns.py",
        "            self.turn.clear()\n            kept.careful",
        "            self.turn.end()\n            kept.careful",
    ),
    Mutant(
        "what changes after forget is removed without a word",
        "core/turns.py",
        "            if turn.forgotten and (changed := self._changed_since(kept, entity)):\n",
        "            if changed := []:\n",
    ),
    Mutant(
        "a timer that is set again leaves more behind each time",
        "core/tables/timers.py",
        "        if len(self._heap) > 2 * len(self._standing) + STALE_MIN:\n",
        "        if False:\n",
    ),
    Mutant(
        "a reply that a later turn changes is encoded with the batch",
        "core/turns.py",
        "        in_turn = wanted and handler.returns not in IMMUTABLE\n",
        "        in_turn = False\n",
    ),
    Mutant(
        "the rest of a message that is cut is forgotten",
        "core/intake.py",
        "                    self._outside.appendleft(rest)\n                    count = most\n",
        "                    count = most\n",
    ),
    Mutant(
        "a position is not in the commit of its items",
        "core/intake.py",
        "            for (source, partition), position in self._new_positions.items()\n",
        "            for (source, partition), position in self.positions.items()\n",
    ),
    Mutant(
        "items are taken whatever they follow",
        "core/intake.py",
        "        if event.after != newest:\n",
        "        if False and event.after != newest:\n",
    ),
    Mutant(
        "local messages overtake the shard's own stream",
        "core/intake.py",
        "        delivery.queueing = slow or bool(self._streams.own.waiting)\n",
        "        delivery.queueing = slow\n",
    ),
    Mutant(
        "what does not fit in a batch is forgotten",
        "core/delivery.py",
        "                self._route(messages, queueing=self.queueing or turns_max <= 0)\n",
        "                if self.queueing or turns_max > 0:\n"
        "                    self._route(messages, queueing=self.queueing)\n",
    ),
    Mutant(
        "a batch that is thrown away leaves its timers",
        "core/shard.py",
        "        self.turns.undo()\n        self.timers.undo()\n",
        "        self.turns.undo()\n",
    ),
    Mutant(
        "a batch that is thrown away leaves its asks",
        "core/shard.py",
        "        self.asks.undo()\n        self.requests.undo()\n",
        "        self.requests.undo()\n",
    ),
    Mutant(
        "a batch that is thrown away leaves its live objects",
        "core/turns.py",
        "            for key in (*kept.dirty, *kept.forgotten):\n                kept.places.pop(key, None)\n",
        "",
    ),
    Mutant(
        "a run of messages overtakes the one before it",
        "core/buffer.py",
        "            self._closed.append(\n",
        "            self._closed.insert(\n                max(0, len(self._closed) - 1),\n",
    ),
    Mutant(
        "what was sent before an ask comes behind it",
        "core/delivery.py",
        "        add = self.left.add\n        for place, (handler",
        "        add = self.left.add\n"
        "        turn.sends.sort(key=lambda sent: sent[3] is None)\n"
        "        for place, (handler",
    ),
    Mutant(
        "a forgotten entity's state stays in the store",
        "core/turns.py",
        "        gone = [key for key in kept.forgotten if key not in dirty]\n",
        "        gone: list[str] = []\n",
    ),
    Mutant(
        "a turn that raises leaves its messages",
        "core/turns.py",
        "            self.turn.clear()\n            kept.careful = CAREFUL_BATCHES\n",
        "            kept.careful = CAREFUL_BATCHES\n",
    ),
    Mutant(
        "a timer fires from memory, not from its row",
        "core/delivery.py",
        "        if self.timers.stands(row_key) is not candidate:\n            return\n",
        "",
    ),
    Mutant(
        "a timer that fired keeps its row",
        "core/delivery.py",
        "        self.timers.cancel(row_key)\n        handler = self.handlers.get(candidate.handler)",
        "        handler = self.handlers.get(candidate.handler)",
    ),
    Mutant(
        "a timer is not loaded at a restart",
        "core/shard.py",
        "        self.timers.load(scan(Table.TIMER))\n",
        "",
    ),
    Mutant(
        "asks are not loaded at a restart",
        "core/shard.py",
        "        self.asks.load(scan(Table.ASK))\n",
        "",
    ),
    Mutant(
        "an ask keeps its row after its first outcome",
        "core/tables/asks.py",
        "        self._gone[id] = asker\n",
        "",
    ),
    Mutant(
        "an ask has two outcomes in one batch",
        "core/tables/asks.py",
        "        if known is None or id not in known or id in self._gone:\n",
        "        if known is None or id not in known:\n",
    ),
    Mutant(
        "a reply overtakes what its turn has sent",
        "core/loops.py",
        "            if turn.extra or turn.sends:\n"
        "                leave(place)\n"
        "            to_type, to_key, id = asker\n",
        "            to_type, to_key, id = asker\n",
    ),
    Mutant(
        "requests are taken in however much is inside",
        "core/intake.py",
        "        most = max(self.turns_max - inside, self.turns_max // OUTSIDE_PART, 1)\n",
        "        most = self.turns_max\n",
    ),
    Mutant(
        "what a sink has written waits behind requests",
        "core/intake.py",
        "            self._outside.appendleft(event)\n            return\n",
        "            self._outside.append(event)\n            return\n",
    ),
    Mutant(
        "the time-out of an answered ask stays",
        "core/delivery.py",
        '        elif candidate.kind == "named" or self._late(candidate):\n',
        "        else:\n",
    ),
    Mutant(
        "a changed state is not in its commit",
        "core/turns.py",
        "        dirty = kept.dirty\n",
        "        dirty = kept.dirty\n"
        "        if len(dirty) > 3:\n            live.remove(dirty.popitem()[1])\n",
    ),
    Mutant(
        "ids begin anew in each commit of an epoch",
        "core/delivery.py",
        "        return _ID.pack(self.me, self._epoch, self._commit, self._index)",
        "        return _ID.pack(self.me, 0, 0, self._index)",
    ),
    Mutant(
        "time goes back",
        "core/shard.py",
        "        self.now_ns = max(self.now_ns, now_ns)\n",
        "        self.now_ns = now_ns\n",
    ),
    Mutant(
        "the tree is marked as covering what was not carried",
        "store/store.py",
        "        if carried is None:\n            self._jobs.put(Job(ends=True))\n",
        "        if carried is None or self._sweep.take(1) is None:\n"
        "            self._jobs.put(Job(ends=True))\n",
    ),
    Mutant(
        "what was sealed during a sweep goes with it",
        "store/memtable.py",
        'sees all that the sweep carried."""\n        self.lower = Layer(1)\n',
        'sees all that the sweep carried."""\n        self.upper, self.lower = Layer(1), Layer(1)\n',
    ),
    Mutant(
        "an overlay entry goes before the reader is renewed",
        "store/store.py",
        "        self._reader.abort()\n        self._reader = self._env.begin()\n        self._reader_behind = 0\n",
        "        self._reader_behind = 0\n",
    ),
    Mutant(
        "the log is cut off at a bad record",
        "store/segments.py",
        "                    if last.no >= due:\n                        return\n",
        "                    if last.no >= 0:\n                        return\n",
    ),
    Mutant(
        "a row's checksum is not looked at",
        "store/tree.py",
        "    if len(stored) < _SIZE or stored[:_SIZE] != _digest(key + value):",
        "    if len(stored) < _SIZE:",
    ),
    Mutant(
        "a slot's fingerprint counts what was written over",
        "store/tree.py",
        " - sum(checksums(old))",
        "",
    ),
    Mutant(
        "a sweep forgets what it was dealing out when a step ended",
        "store/checkpoint.py",
        "        for keys, entries in states.pieces(STEP_ROWS):\n",
        "        for keys, entries in states.pieces(STEP_ROWS):\n            own.clear()\n",
    ),
    Mutant(
        "of one key's states in the overlay an older one wins",
        "store/memtable.py",
        "            entries[number - first] = group\n",
        "            entries[number - first] = entries[number - first] or group\n",
    ),
    Mutant(
        "a layer of the overlay has numbers that the one below it has",
        "store/memtable.py",
        "        self.upper = Layer(max(used, default=self.lower.first))\n",
        "        self.upper = Layer(1)\n",
    ),
    Mutant(
        "a number that a known key was offered is given away in the next layer",
        "store/memtable.py",
        "        return self._first + len(self._entries)\n",
        "        return self._first + len(self._numbers)\n",
    ),
    Mutant(
        "states taken apart win over newer ones",
        "store/memtable.py",
        "            if entries[number - first] is group:\n",
        "            if entries[number - first] is not None:\n",
    ),
    Mutant(
        "a deletion does not hide the row in the tree",
        "store/store.py",
        "        if key != previous and value is not None:\n            yield key, value\n        previous = key\n",
        "        if key != previous and value is not None:\n            yield key, value\n            previous = key\n",
    ),
    Mutant(
        "the log's old file goes when its sweep has only begun",
        "store/store.py",
        "            self._log.turn(segment)\n",
        "            self._log.turn(segment)\n            self._log.drop()\n",
    ),
    Mutant(
        "a sweep begins before all that it carries is synced",
        "store/segments.py",
        "        self.sync()\n        assert self.last.no",
        "        assert self.last.no",
    ),
    Mutant(
        "what a killed process left in the page cache is built on without a sync",
        "store/segments.py",
        "        os.fsync(self._fd)\n        _put_marks(self._fd, self.last.no)\n        for",
        "        for",
    ),
    Mutant(
        "the mark is ahead of the sync",
        "store/segments.py",
        "            self._mark()\n        self._unsynced = not sync\n",
        "        self._mark()\n        self._unsynced = not sync\n",
    ),
    Mutant(
        "a log that the tree knows nothing of is thrown away",
        "store/segments.py",
        "            if first > newest and path.stat().st_size > RECORDS_AT:\n",
        "            if first < 0:\n",
    ),
    Mutant(
        "the log of another life of the shard is taken for its own",
        "store/segments.py",
        "        if (oldest.before.no, oldest.before.checksum) != before:\n",
        "        if oldest.before.no != before[0]:\n",
    ),
    Mutant(
        "a page of a scan begins with the last key of the one before, in the tree",
        "store/store.py",
        "if key > after:\n",
        "if key >= after:\n",
    ),
    Mutant(
        "a record need not follow the one before it in its file",
        "store/segments.py",
        "                    if (decoded.no, decoded.previous) != (last.no + 1, last.checksum):\n",
        "                    if decoded.no != last.no + 1:\n",
    ),
    Mutant(
        "a file of the log need not follow the one before it",
        "store/segments.py",
        "            if segment.before != self.last:\n",
        "            if segment.before.no != self.last.no:\n",
    ),
    Mutant(
        "both marks are written at one place",
        "store/segments.py",
        "MARKS_AT[self._marks % 2])",
        "MARKS_AT[0])",
    ),
    Mutant(
        "rows that belong to no slot may vanish from the tree",
        "store/tree.py",
        "    for slot in range(SLOTS + 1):\n",
        "    for slot in range(SLOTS):\n",
    ),
    Mutant(
        "--sync 10ms does not sync",
        "store/store.py",
        'self._log.append(records, sync=self._sync != "off")\n',
        'self._log.append(records, sync=self._sync == "commit")\n',
    ),
    Mutant(
        "--sync commit does not sync",
        "store/store.py",
        'self._log.append(records, sync=self._sync != "off")\n',
        'self._log.append(records, sync=self._sync == "10ms")\n',
    ),
    # A change of workers.
    Mutant(
        "a change of workers leaves the outcomes of requests behind",
        "app/reshard.py",
        "    for table in sorted(SLOTTED - {Table.STATE}):\n",
        "    for table in sorted(SLOTTED - {Table.STATE, Table.REQUEST}):\n",
    ),
    Mutant(
        "a change of workers leaves the floors of requests behind",
        "app/reshard.py",
        "    for table in sorted(SLOTTED - {Table.STATE}):\n",
        "    for table in sorted(SLOTTED - {Table.STATE, Table.FLOOR}):\n",
    ),
    Mutant(
        "a change of workers leaves pending asks behind",
        "app/reshard.py",
        "    for table in sorted(SLOTTED - {Table.STATE}):\n",
        "    for table in sorted(SLOTTED - {Table.STATE, Table.ASK}):\n",
    ),
    Mutant(
        "a change of workers leaves timers behind",
        "app/reshard.py",
        "    for table in sorted(SLOTTED - {Table.STATE}):\n",
        "    for table in sorted(SLOTTED - {Table.STATE, Table.TIMER}):\n",
    ),
    Mutant(
        "a change of workers leaves dead letters behind",
        "app/reshard.py",
        "    for table in sorted(SLOTTED - {Table.STATE}):\n",
        "    for table in sorted(SLOTTED - {Table.STATE, Table.DEAD}):\n",
    ),
    Mutant(
        "a change of workers leaves what waits for sinks behind",
        "app/reshard.py",
        "    for table in sorted(SLOTTED - {Table.STATE}):\n",
        "    for table in sorted(SLOTTED - {Table.STATE, Table.OUTPUT}):\n",
    ),
    Mutant(
        "a change of workers begins time anew",
        "app/reshard.py",
        "    time_ns = max(store.last.time_ns for store in stores.values())\n",
        "    time_ns = 0\n",
    ),
    Mutant(
        "a change of workers goes on from the time of one of its shards",
        "app/reshard.py",
        "    time_ns = max(store.last.time_ns for store in stores.values())\n",
        "    time_ns = min(store.last.time_ns for store in stores.values())\n",
    ),
    Mutant(
        "after a change of workers peers' frames need not wait for what lay in outboxes",
        "core/streams/links.py",
        "            self._receive_own(frame)\n        self.own_first()\n",
        "            self._receive_own(frame)\n",
    ),
    Mutant(
        "a second change of workers deals out what is newer first",
        "app/reshard.py",
        "key=lambda ends: ends[0] != ends[1]):\n",
        "key=lambda ends: ends[0] == ends[1]):\n",
    ),
    Mutant(
        "a change of workers deals out what its receivers have taken",
        "app/reshard.py",
        '        if int.from_bytes(key[4:], "big") <= taken:\n',
        "        if False:\n",
    ),
    # Second lines of defence.
    Mutant(
        "a frame's checksum is not compared at a handshake",
        "core/streams/outbound.py",
        "        if seq and ours != checksum:\n",
        "        if False:\n",
    ),
    Mutant(
        "a receiver ahead of its sender is not noticed",
        "core/streams/outbound.py",
        "        if seq > self.sealed or seq > self.durable:\n",
        "        if False:\n",
    ),
    Mutant(
        "a hello of another incarnation is taken",
        "core/streams/links.py",
        "        if packet.body != self._incarnation:\n",
        "        if False:\n",
    ),
    Mutant(
        "a packet for a newer epoch of ours does not stop us",
        "core/streams/links.py",
        "        if packet.dst_epoch > self.epoch:\n",
        "        if False:\n",
    ),
    Mutant(
        "a request for another's slot is served, one by one",
        "core/clients.py",
        "            if slot not in self._mine:\n",
        "            if False:\n",
    ),
    Mutant(
        "a request for another's slot is served, in a run",
        "core/clients.py",
        " or not self._mine.issuperset(slots):\n",
        ":\n",
    ),
    # What goes out to sinks.
    Mutant(
        "an item is handed to its sink before it is durable",
        "core/tables/outputs.py",
        "            if end.writing or not end.rows or end.rows[0].commit > durable:\n                continue\n",
        "            durable = 1 << 62\n            if end.writing or not end.rows:\n                continue\n",
    ),
    Mutant(
        "items are numbered anew after a restart",
        "core/tables/outputs.py",
        "            end.number = row.number\n",
        "            end.number = 0\n",
    ),
    Mutant(
        "the row of an item goes when it is handed over",
        "core/tables/outputs.py",
        "            end.writing = first + len(items) - 1\n",
        "            end.writing = first + len(items) - 1\n            self._gone.append((end, end.writing))\n",
    ),
    Mutant(
        "what waits for a sink is forgotten by a restart",
        "core/tables/outputs.py",
        "            end.rows.append(_Kept(bytes(key), first, len(items), len(value), 0))\n",
        "",
    ),
    Mutant(
        "an app is over before its sinks have everything",
        "core/shard.py",
        "            and not self.outputs.unwritten\n",
        "",
    ),
    # The cut of a backup.
    Mutant(
        "a frame is handled before the cut that it asks for",
        "core/streams/links.py",
        "        self.cut_at(packet.cut)\n        try:\n"
        "            return self._listen(stream, packet)\n",
        "        try:\n            effects = self._listen(stream, packet)\n"
        "            if packet.kind != Kind.FRAME:\n                self.cut_at(packet.cut)\n"
        "            return effects\n",
    ),
    Mutant(
        "acks do not say the cut",
        "core/streams/links.py",
        "            self.cut,\n            self._token,",
        "            0 if kind == Kind.ACK else self.cut,\n            self._token,",
    ),
    Mutant(
        "frames do not say the cut",
        "core/streams/links.py",
        "            self.cut,\n            self._token,",
        "            0 if kind == Kind.FRAME else self.cut,\n            self._token,",
    ),
    Mutant(
        "what is kept for a backup is the end of it, not its beginning",
        "core/streams/links.py",
        "            self.cut = no\n            self.keep(no)\n",
        "            self.cut = no\n        if self.cut:\n            self.keep(self.cut)\n",
    ),
    Mutant(
        "a frame says the cut of when it was sealed, not of when it leaves: trace 62",
        "core/streams/links.py",
        "            self.cut = no\n            self.keep(no)\n",
        "            before, said = self.cut, {p: s.sealed for p, s in self.outbound.items()}\n"
        "            packet = self._packet\n\n"
        "            def stamped(kind, peer, *fields):\n"
        "                made = packet(kind, peer, *fields)\n"
        "                if kind != Kind.FRAME or made.seq > said[peer]:\n"
        "                    return made\n"
        "                from msgspec.structs import replace\n\n"
        "                return replace(made, cut=before)\n\n"
        "            self._packet = stamped\n"
        "            self.cut = no\n            self.keep(no)\n",
    ),
    Mutant(
        "what is kept for a backup is older than what has left",
        "simulator/disk.py",
        "        upto = self.ahead(self._synced, len(self._records))\n",
        "        upto = self.ahead(max(0, self._synced - 1), self._synced)\n",
    ),
    Mutant(
        "the store keeps for a backup what it kept for the one before",
        "store/store.py",
        "        self.let_go()\n        with self._turning:\n",
        "        old = self._kept\n        if old:\n"
        "            self._kept = Kept(no, old.transaction, old.log, old.until_s)\n"
        "            return\n        with self._turning:\n",
    ),
    Mutant(
        "a backup that comes late takes away what a newer one keeps",
        "store/store.py",
        "        kept = self._kept\n        if kept is None or kept.no != no:",
        "        kept, self._kept = self._kept, None\n        if kept is None or kept.no != no:",
    ),
    # What callers, supervisors and workers' answers do.
    Mutant(
        "a session: a retry is a new request",
        "client/session.py",
        "            if not call.number:\n                if call.until_s",
        "            if call is not None:\n                if call.until_s",
    ),
    Mutant(
        "a session: what has no outcome is confirmed",
        "client/session.py",
        "                    below[call.slot] = min(below.get(call.slot, call.number), call.number - 1)\n",
        "                    pass\n",
    ),
    Mutant(
        "a session: what waits to be said again is confirmed",
        "client/window.py",
        "        return [*self.flight.values(), *takewhile(number_of, self.waiting)]\n",
        "        return [*self.flight.values()]\n",
    ),
    Mutant(
        "a session: nothing is said again after a line broke",
        "client/session.py",
        "        if self.greeting is not None:\n            self._say_again(door)\n",
        "",
    ),
    Mutant(
        "a session: what a busy door refused is forgotten",
        "client/window.py",
        "        self.put_back([n for n, call in calls if n >= first.get(call.slot, math.inf)])\n",
        "        del calls\n        [self.take(number) for number in numbers]\n",
    ),
    Mutant(
        "a session: what waits for a refused request leaves it no room",
        "client/window.py",
        "        self.put_back([n for n, call in calls if n >= first.get(call.slot, math.inf)])\n",
        "        del calls\n        self.put_back(numbers)\n",
    ),
    Mutant(
        "a session: as long as anything is overdue, more of it is said with every tick",
        "client/window.py",
        "            self.again_at_s = now_s + self.again_s\n",
        "            self.again_at_s = now_s\n",
    ),
    Mutant(
        "a session: who waits when it closes is told nothing",
        "client/session.py",
        "                self._finish(call, UNKNOWN if call.number else UNSAID)\n",
        "                pass\n",
    ),
    Mutant(
        "a session: a door gets more at once than its window",
        "client/window.py",
        "        while waiting and len(flight) < self.window:\n",
        "        while waiting:\n",
    ),
    Mutant(
        "a session: a door that was busy is asked again at once",
        "client/window.py",
        "            self.paused_until_s = now_s + pause_s * (1 + drawn) / 2\n",
        "",
    ),
    Mutant(
        "a session: what nobody waits for any more is said",
        "client/session.py",
        "                if call.until_s <= now_s and not call.named:\n",
        "                if False:\n",
    ),
    Mutant(
        "a connection: a busy loop is not heard before more is said",
        "client/connection.py",
        "        for shard in self._session.full_doors():\n            self._line(shard).hear()\n",
        "",
    ),
    Mutant(
        "a session: who takes long is asked again, all of it",
        "client/window.py",
        "            self.put_back([call.number for call in overdue[:AGAIN_MAX]])\n",
        "            self.put_back([call.number for call in overdue])\n",
    ),
    Mutant(
        "a session: what was never said and given up is kept",
        "client/session.py",
        "            if len(left) < len(door.waiting):\n                door.waiting = deque(left)\n",
        "",
    ),
    Mutant(
        "a session: a run takes in a request that stands behind another of its slot",
        "client/session.py",
        "        if place < touched.get(call.slot, 0):\n",
        "        if place < 0:\n",
    ),
    Mutant(
        "a session: requests to one entity do not name the one before",
        "client/session.py",
        "        if previous in door.flight:\n            call.previous = previous\n",
        "",
    ),
    Mutant(
        "a session: a named request gets a number like any other",
        "client/session.py",
        '            call.number = _NAMED | int.from_bytes(call.named[:7], "big")\n',
        "            self._number += 1\n            call.number = _NAMED | self._number\n",
    ),
    Mutant(
        "a page of a scan begins with the last key of the one before, above the tree",
        "store/order.py",
        "bisect_right(of_slot, after) if after else 0",
        "bisect_left(of_slot, after) if after else 0",
    ),
    Mutant(
        "a page of a scan lacks what was written since the one before",
        "store/order.py",
        "            self._unsorted.discard(slot)\n            of_slot.sort()\n",
        "            self._unsorted.discard(slot)\n",
    ),
    Mutant(
        "a session: what goes to new owners is said door by door, not in the order of its numbers",
        "client/session.py",
        "        said = sorted(chain.from_iterable(d.take_said() for d in self._all_doors()), key=number_of)\n",
        "        said = list(chain.from_iterable(d.take_said() for d in self._all_doors()))\n",
    ),
    Mutant(
        "a session: what goes to new owners is said behind what was never said",
        "client/session.py",
        "        for call in chain(said, unsaid):\n",
        "        for call in chain(unsaid, said):\n",
    ),
    Mutant(
        "a session: what was under way at a restore is said again to the restored app",
        "client/session.py",
        "        for call in lost:\n            self._finish(call, UNKNOWN)\n",
        "        for call in lost:\n"
        "            call.number = call.previous = 0\n"
        "            self._owners[call.slot].waiting.append(call)\n",
    ),
    Mutant(
        "a session: what was under way at a restore is forgotten, and nobody is told",
        "client/session.py",
        "        for call in lost:\n            self._finish(call, UNKNOWN)\n",
        "",
    ),
    Mutant(
        "dead letters of a batch that was thrown away are kept",
        "core/tables/dead_letters.py",
        "        self.rows.clear()\n",
        "        pass\n",
    ),
    Mutant(
        "a dead letter that two operators retry at once runs twice",
        "core/intake.py",
        " or event.id in self._delivery.dead.gone:\n",
        ":\n",
    ),
    Mutant(
        "an outcome that nobody handled can be retried",
        "core/delivery.py",
        '            self.dead.bury(type_name, key, f"{kind}: {first}", answered=True)\n',
        '            self.dead.bury(type_name, key, f"{kind}: {first}")\n',
    ),
    Mutant(
        "a refusal by a full store is not remembered",
        "core/clients.py",
        "            return outcome, not request.named\n",
        "            return outcome, False\n",
    ),
    Mutant(
        "a state is told before it is durable",
        "gateway/inquiries.py",
        "        no = self._shard.no\n",
        "        no = self._shard.durable\n",
    ),
    Mutant(
        "what slow mode has cut is overtaken when it ends",
        "core/intake.py",
        "            self._streams.own_first()\n",
        "            pass\n",
    ),
    Mutant(
        "one quiet round is the end",
        "app/watch.py",
        "        over = quiet and positions == self._before\n",
        "        over = quiet\n",
    ),
    Mutant(
        "two quiet rounds are the end, whatever ran between",
        "app/watch.py",
        "        over = quiet and positions == self._before\n",
        "        over = quiet and bool(self._before)\n",
    ),
    Mutant(
        "a message that ends its worker is never found",
        "app/watch.py",
        "            known = NOTHING != beat.running == self._suspect\n",
        "            known = False\n",
    ),
    Mutant(
        "the first message that ends a worker is buried at once",
        "app/watch.py",
        "            known = NOTHING != beat.running == self._suspect\n",
        "            known = beat.running != NOTHING\n",
    ),
    # The description and its stores.
    Mutant(
        "a small file gets its name before it is synced",
        "store/sealed_file.py",
        "            write_all(fd, data, 0)\n            os.fsync(fd)\n",
        "            write_all(fd, data, 0)\n",
    ),
    Mutant(
        "the checksum of a small file is not compared",
        "store/sealed_file.py",
        "    if _sealed(text) != raw:\n",
        "    if not raw:\n",
    ),
    Mutant(
        "a write that took less is a write",
        "store/segments.py",
        "    while rest:\n        written = os.pwritev",
        "    if rest:\n        written = os.pwritev",
    ),
    Mutant(
        "the description is written before the new stores are synced",
        "app/reshard.py",
        "        deal(stores, placement, new)\n",
        "        membership.dealt_out(data, app, placement.version)\n"
        "        directory.save(data, moved)\n"
        "        deal(stores, placement, new)\n",
    ),
    Mutant(
        "old stores are marked after the description has the new ones",
        "app/reshard.py",
        "    membership.dealt_out(data, app, placement.version)\n    directory.save(data, moved)\n",
        "    directory.save(data, moved)\n    membership.dealt_out(data, app, placement.version)\n",
    ),
    Mutant(
        "a folder that no description mentions is thrown away",
        "app/membership.py",
        "        if _replaceable(data, app, entry):\n            _remove(entry)\n",
        "        if _STORE.fullmatch(entry.name) and _only_ours(entry):\n            _remove(entry)\n",
    ),
    Mutant(
        "an old store is removed beside members that are not whole",
        "app/membership.py",
        "    return (superseded or unfinished) and _whole(data, app.placement.members)\n",
        "    return superseded or unfinished\n",
    ),
    Mutant(
        "a start writes the labels before the description",
        "app/membership.py",
        "    save(data, app)\n    for shard, label in known.items():\n",
        "    for shard, label in known.items():\n        told = replace(label, generation=app.generation)\n"
        "        labels.write(folder_of(data, shard), told)\n"
        "    save(data, app)\n    for shard, label in known.items():\n",
    ),
    Mutant(
        "an older description of the same placement passes",
        "app/membership.py",
        "    if (label.version, label.generation) > (version, generation):\n",
        "    if label.version > version:\n",
    ),
    Mutant(
        "new shards take ids whatever folders are there",
        "app/membership.py",
        "        if not os.path.lexists(folder_of(data, candidate)):\n            found.append(candidate)\n",
        "        found.append(candidate)\n",
    ),
]
