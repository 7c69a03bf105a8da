import contextlib
import itertools
import threading

import pytest

from flaxseg.errors import DataError
from flaxseg.inference.pipeline import Batching, pipeline


class Shop:
    """Counts items between the start of their reading and the end of their writing."""

    def __init__(self):
        self.lock, self.alive, self.most = threading.Lock(), 0, 0
        self.threads = {}

    def count(self, change):
        with self.lock:
            self.alive += change
            self.most = max(self.most, self.alive)

    def read(self, item):
        self.count(1)
        if item % 7 == 3:
            self.count(-1)
            raise DataError(f"{item} is bad")
        self.threads["read"] = threading.current_thread()
        return f"content {item}"

    def start(self, batch):
        assert all(content == f"content {item}" for item, content in batch)
        self.threads["start"] = threading.current_thread()
        return [item for item, _ in batch]

    def write(self, started):
        self.threads["write"] = threading.current_thread()
        self.count(-1)
        return -started


@pytest.mark.parametrize("alive", [1, 2, 4])
def test_all_items_go_through_and_few_are_alive(alive):
    shop, drawn = Shop(), []

    def items():
        for item in range(60):
            drawn.append(item)
            yield item

    good, bad = [], {}
    for item, outcome in pipeline(items(), shop.read, shop.start, shop.write, alive=alive):
        assert len(drawn) - len(good) - len(bad) <= alive
        if isinstance(outcome, DataError):
            bad[item] = str(outcome)
        else:
            assert outcome == -item
            good.append(item)
    assert good == [item for item in range(60) if item % 7 != 3]
    assert bad == {item: f"{item} is bad" for item in range(3, 60, 7)}
    assert 1 <= shop.most <= alive
    assert shop.threads["start"] is threading.current_thread()
    assert threading.current_thread() not in (shop.threads["read"], shop.threads["write"])


def test_reading_goes_on_while_the_device_works_and_stops_at_the_bound():
    shop, ahead = Shop(), threading.Semaphore(0)

    def read(item):
        content = shop.read(item)
        ahead.release()
        return content

    def start(batch):
        if (
            batch[0][0] == 0
        ):  # waits for all that may be read besides, and would wait in vain for more
            assert all(ahead.acquire(timeout=60) for _ in range(3))
            assert not ahead.acquire(timeout=0.2)
        return [item for item, _ in batch]

    items = [item for item in range(20) if item % 7 != 3]
    outcomes = list(pipeline(items, read, start, shop.write, alive=3))
    assert [item for item, _ in outcomes] == items and shop.most == 3


@pytest.mark.parametrize("step", ["start", "write", "caller"])
def test_an_end_in_the_middle_is_passed_on_and_leaves_no_thread(step):
    shop, before = Shop(), threading.active_count()

    def failing(name):
        def run(*args):
            item = args[0][0][0] if name == "start" else args[0]
            if step == name and item == 2:
                raise KeyboardInterrupt
            return getattr(shop, name)(*args)

        return run

    outcomes = pipeline(range(1000), shop.read, failing("start"), failing("write"))
    seen = []
    with pytest.raises(KeyboardInterrupt), contextlib.closing(outcomes):
        for item, _ in outcomes:
            seen.append(item)
            if step == "caller" and item == 2:
                raise KeyboardInterrupt
    assert len(seen) <= 4
    assert threading.active_count() == before


def test_items_that_look_alike_go_together():
    """Batches of three; what is left over goes at the end, and never is too much in work."""
    shop, batches = Shop(), []

    def start(batch):
        batches.append([item for item, _ in batch])
        return shop.start(batch)

    def alike(content):
        return ("even" if int(content.split()[1]) % 2 == 0 else "odd"), 3

    items = [item for item in range(40) if item % 7 != 3]
    batching = Batching(alike, lambda content: 10, most=120)
    outcomes = dict(pipeline(items, shop.read, start, shop.write, batching))
    assert outcomes == {item: -item for item in items}
    assert [len(batch) for batch in batches].count(3) >= len(batches) - 2
    assert all(len({item % 2 for item in batch}) == 1 for batch in batches)
    assert sorted(itertools.chain(*batches)) == items
    assert 4 < shop.most <= 12


def test_heavy_items_go_before_their_batch_is_full():
    shop, sizes = Shop(), []

    def start(batch):
        sizes.append(len(batch))
        return shop.start(batch)

    items = [item for item in range(30) if item % 7 != 3]
    batching = Batching(lambda content: (None, 100), lambda content: 50, most=120)
    assert dict(pipeline(items, shop.read, start, shop.write, batching)).keys() == {*items}
    assert shop.most <= 4 and max(sizes) <= 4
