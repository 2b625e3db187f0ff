"""Nobody judges by a memory that is being built."""

import asyncio

from watchword_adapters.nats.gate import Gate


async def turn() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_builder_waits_for_those_inside_and_keeps_others_out() -> None:
    """Those inside finish with the memory that they began with; whatever comes later waits for the new one."""
    gate, log = Gate(), list[str]()

    async def build() -> None:
        async with gate.alone():
            log.append("built")

    async def judge() -> None:
        await gate.opened()
        with gate:
            log.append("judged")

    with gate:
        with gate:
            building = asyncio.create_task(build())
            await turn()
            assert [gate.is_open] == [False]
        judging = asyncio.create_task(judge())
        await turn()
        assert log == []
    await asyncio.gather(building, judging)
    assert log == ["built", "judged"]
    assert gate.is_open


async def test_builders_build_one_after_the_other() -> None:
    """The gate opens behind the last of them, whatever becomes of the others, and of whatever else holds it."""
    gate, building, most = Gate(), 0, 0

    async def build(fails: bool) -> None:  # noqa: FBT001 - a list of them
        nonlocal building, most
        async with gate.alone():
            building += 1
            most = max(most, building)
            await turn()
            building -= 1
            if fails:
                raise OSError

    gate.hold()
    ended = await asyncio.gather(*[build(fails) for fails in (False, True, False)], return_exceptions=True)
    assert [type(one) for one in ended] == [type(None), OSError, type(None)]
    assert most == 1
    assert [gate.is_open] == [False]
    gate.release()
    assert gate.is_open
    await gate.opened()
