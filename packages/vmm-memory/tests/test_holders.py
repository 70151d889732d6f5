"""Who keeps memory in use."""

import gc

from vmm_memory._holders import Holders, caller


class User:
    """Something that can be closed."""

    closed = False

    def __repr__(self):
        return f"<User {self.closed}>"


def test_users_count_while_they_are_alive_and_open():
    """By repr or by a name; of a range, or of all."""
    holders, users = Holders(), [User(), User(), User()]
    holders.add(users[0])
    holders.add(users[1], lambda: "named", (0x1000, 0x2000))
    holders.add(users[2], lambda: "closed")
    users[2].closed = True
    assert holders.names() == ("<User False>", "named")
    assert holders.names((0, 0x1000)) == ("<User False>",)
    assert holders.names((0x1FFF, 0x2000)) == ("<User False>", "named")
    users.pop(0)
    gc.collect()
    assert holders.names() == ("named",)
    assert holders.wait(0) == ("named",)
    users.clear()
    gc.collect()
    assert holders.wait(30) == ()


def test_an_id_that_is_used_again():
    """The end of an earlier user does not take out the later one that has its id."""
    holders, first, second = Holders(), User(), User()
    holders.add(first)
    holders._users[id(first)] = (lambda: second, None, None)
    del first
    gc.collect()
    assert holders.names() == ("<User False>",)


def test_the_place_is_outside_the_package():
    """File and line of who called."""
    assert caller().startswith("test_holders.py:")
