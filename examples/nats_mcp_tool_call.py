"""An agent framework's messages on NATS: MCP tool calls, as the MCP SDK's own types write them, between two agents.

MCP says what a call looks like, and nothing about who made it; on a bus anyone who may publish can call any tool. Here
the tools know the caller, and policy says who may call which. Keys are made here; a process of your own has
``watchword.load()``.

    $ python examples/nats_mcp_tool_call.py nats://localhost:4222
    intern: no answer to delete
    tools: agent://acme/planner calls scale {'service': 'web', 'replicas': 3}
    planner: 'web runs on 3 machines', says agent://acme/tools
    tools: delivered 1, dropped 1 not_permitted and 1 unsigned
"""

import asyncio
import sys

import nats
from mcp_types import (
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    JSONRPCRequest,
    JSONRPCResponse,
    TextContent,
)
from nats.errors import TimeoutError as NoAnswer

from watchword import Allow, Policy, SigningKey, Watchword
from watchword.nats import VerifiedMsg, WatchwordClient, connect

TOOLS, PLANNER, INTERN = "agent://acme/tools", "agent://acme/planner", "agent://acme/intern"
KEYS = {name: SigningKey.generate() for name in (TOOLS, PLANNER, INTERN)}
PUBLIC = [key.verification_key(name) for name, key in KEYS.items()]
RULES = (
    Allow(PLANNER, ("nats://demo/mcp.tools.>",)),
    Allow(INTERN, ("nats://demo/mcp.tools.list",)),
)


def agent(principal: str, *rules: Allow) -> Watchword:
    """Return what an agent plugs into its client."""
    return Watchword(realm="demo", principal=principal, key=KEYS[principal], keys=PUBLIC, policy=Policy(allow=rules))


def call(tool: str, **arguments: object) -> bytes:
    """Return a tool call in MCP's JSON-RPC."""
    request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments))
    return JSONRPCRequest(jsonrpc="2.0", id=1, **request.model_dump(exclude_none=True)).model_dump_json().encode()


async def answer(msg: VerifiedMsg) -> None:
    """Do what a verified caller asks."""
    request = JSONRPCRequest.model_validate_json(msg.data)
    asked = CallToolRequest.model_validate({"method": request.method, "params": request.params}).params
    print(f"tools: {msg.verified.principal} calls {asked.name} {asked.arguments}")
    done = "{service} runs on {replicas} machines".format(**asked.arguments or {})
    result = CallToolResult(content=[TextContent(type="text", text=done)]).model_dump(mode="json", exclude_none=True)
    await msg.respond(JSONRPCResponse(jsonrpc="2.0", id=request.id, result=result).model_dump_json().encode())


async def ask(client: WatchwordClient, seconds: float, tool: str, **arguments: object) -> str:
    """Call a tool, and return what it said in time and who said it."""
    msg = await client.request(f"mcp.tools.{tool}", call(tool, **arguments), timeout=seconds, recipient=TOOLS)
    result = CallToolResult.model_validate(JSONRPCResponse.model_validate_json(msg.data).result)
    (said,) = result.content
    return f"{said.text!r}, says {msg.verified.principal}" if isinstance(said, TextContent) else "no text"


async def main(servers: str) -> None:
    """Let an agent that may, one that may not and a stranger call tools."""
    serving = agent(TOOLS, *RULES)
    async with (
        await connect(servers, watchword=serving) as tools,
        await connect(servers, watchword=agent(PLANNER)) as planner,
        await connect(servers, watchword=agent(INTERN)) as intern,
        await nats.connect(servers) as stranger,
    ):
        await tools.subscribe("mcp.tools.*", cb=answer)
        await tools.ready()  # until then what comes might be a copy of what an earlier run was given
        await stranger.publish("mcp.tools.delete", call("delete", service="web"))
        try:
            await ask(intern, 1, "delete", service="web")
        except NoAnswer:
            print("intern: no answer to delete")
        print(f"planner: {await ask(planner, 30, 'scale', service='web', replicas=3)}")
        counts = serving.audit.counts
        async with asyncio.timeout(30):
            while not (counts["unsigned"] and counts["not_permitted"]):  # noqa: ASYNC110 - no one is notified of drops
                await asyncio.sleep(0.01)
        dropped = f"{counts['not_permitted']} not_permitted and {counts['unsigned']} unsigned"
        print(f"tools: delivered {counts['delivered']}, dropped {dropped}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "nats://localhost:4222"))
