"""Who is in the demo: people, desks, what breaks there, and the processes that seem to run. What is said is in the
files beside this one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from botsrt.core.states import AdapterStatus, UnknownUserPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Someone:
    """A contact: who writes on one platform."""

    name: str
    handle: str
    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A bot, and what its adapter says of itself."""

    platform: str
    agent: str
    policy: UnknownUserPolicy
    status: AdapterStatus = AdapterStatus.RUNNING
    identity: str = ""
    error: str = ""
    restarts: int = 0
    is_enabled: bool = True
    settings: dict[str, str] = field(default_factory=dict)
    credentials: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """How an attempt fails."""

    error_class: str
    text: str
    traceback: str = ""
    frame: str = ""
    is_transient: bool = False
    is_timeout: bool = False


PEOPLE: dict[str, Someone] = {
    "lucia": Someone(name="Lucía Romero", handle="lucia_romero", user_id="518203771"),
    "lucia-web": Someone(name="Lucía Romero", handle="", user_id="lucia.romero@correo.example"),
    "kenji": Someone(name="Kenji Watanabe", handle="kenji_w", user_id="601774520"),
    "kenji-slack": Someone(name="Kenji Watanabe", handle="kenji.watanabe", user_id="U04KWATANABE"),
    "amara": Someone(name="Amara Okafor", handle="amara_okafor", user_id="733019284"),
    "jonas": Someone(name="Jonas Petersen", handle="jonaspetersen", user_id="402118856"),
    "mai": Someone(name="Mai Nguyễn", handle="mai.nguyen", user_id="U05MNGUYEN"),
    "priya": Someone(name="Priya Raghavan", handle="priya.raghavan", user_id="U02PRAGHAVAN"),
    "oleksandr": Someone(name="Олександр Коваль", handle="okoval", user_id="377120945"),
    "beatriz": Someone(name="Beatriz Carvalho", handle="bia_carvalho", user_id="690441207"),
    "henrik": Someone(name="Henrik Lindqvist", handle="henrik_l", user_id="455670112"),
    "sofia": Someone(name="Sofia Papadopoulou", handle="sofiapap", user_id="581093347"),
    "marek": Someone(name="Marek Nowak", handle="marek_nowak", user_id="318827740"),
    "yui": Someone(name="Yui Satō", handle="", user_id="yui.sato@mail.example"),
    "chloe": Someone(name="Chloé Dubois", handle="", user_id="chloe.dubois@poste.example"),
    "diego": Someone(name="Diego Morales", handle="diego.morales", user_id="U07DMORALES"),
    "aisha": Someone(name="عائشة بن علي", handle="aisha.benali", user_id="U06ABENALI"),
    "liam": Someone(name="Liam O'Sullivan", handle="liam.osullivan", user_id="U03LOSULLIVAN"),
    "noor": Someone(name="Noor de Vries", handle="noordevries", user_id="499203115"),
    "thabo": Someone(name="Thabo Mokoena", handle="thabo_m", user_id="720118330"),
    "ingrid": Someone(name="Ingrid Solberg", handle="", user_id="ingrid@solberg.example"),
    "freya": Someone(name="Freya Jónsdóttir", handle="freya.jons", user_id="U08FJONSDOTTIR"),
    "omar": Someone(name="Omar Haddad", handle="omar_haddad", user_id="645502198"),
    "zainab": Someone(name="Zainab Bello", handle="zainabbello", user_id="733019555"),
    "emma": Someone(name="Emma Schneider", handle="emma_schneider", user_id="411907263"),
    "marta": Someone(name="Marta Kowalczyk", handle="marta.kowalczyk", user_id="U01MKOWALCZYK"),
    # Who asks for access.
    "hiroshi": Someone(name="Hiroshi Tanaka", handle="htanaka_tours", user_id="802211934"),
    "spammer": Someone(name="Quick Gains $$$", handle="quick_gains_07", user_id="999120043"),
    "nadia": Someone(name="Nadia Yılmaz", handle="nadia_yilmaz", user_id="688120774"),
    "hannah": Someone(name="Hannah Becker", handle="hannah_becker", user_id="540082916"),
    "ravi": Someone(name="Ravi Deshpande", handle="ravi_deshpande", user_id="815533012"),
    "elena": Someone(name="Elena Bianchi", handle="elena_bianchi", user_id="577201844"),
    "lukas": Someone(name="Lukas Horvat", handle="", user_id="866420119"),
}

#: Who asks the small questions in between.
REGULARS: dict[str, tuple[str, ...]] = {
    "shop": ("jonas", "oleksandr", "noor", "emma"),
    "shop-web": ("ingrid", "chloe"),
    "travel": ("kenji", "amara", "beatriz"),
    "it-desk": ("kenji-slack", "mai", "priya", "freya"),
}

#: Chats of groups, by the name that the talks use: id and title.
CHATS: dict[str, tuple[str, str]] = {"neighbours": ("-1001790042213", "Neighbours of Schanzenstraße")}

#: Whose small talk a desk has.
TOPICS: dict[str, str] = {"shop": "shop", "shop-web": "shop", "travel": "travel", "it-desk": "it-desk"}

AGENTS: dict[str, tuple[str, str, dict[str, str]]] = {
    "shop-assistant": (
        "echo",
        "You help the customers of an olive oil and delicatessen shop. Be short and friendly; prices include tax. "
        "Never promise a delivery date that the order system does not show.",
        {"prefix": "Thank you, we have your message: "},
    ),
    "travel-agent": (
        "echo",
        "You plan journeys. Ask for dates, number of people and budget before you propose anything. "
        "Bookings above 2,000 euros are confirmed by a colleague.",
        {"prefix": "A colleague plans this with you. You asked: ", "delay_seconds": "1"},
    ),
    # Its module is not there: what is retried fails again, until the bot is given another agent.
    "it-helper": (
        "python",
        "You are the first contact of the IT help desk. Never reset a password without a verified badge number.",
        {"target": "helpdesk.agent:answer", "max_threads": "8"},
    ),
}

_ALLOW, _PAIR = UnknownUserPolicy.ALLOW, UnknownUserPolicy.PAIR

DESKS: dict[str, Desk] = {
    "shop": Desk(
        platform="telegram",
        agent="shop-assistant",
        policy=_ALLOW,
        identity="@oliveshop_bot",
        settings={"unknown_sends": "hold"},
        credentials={"token": "env:DEMO_SHOP_TOKEN"},
    ),
    "shop-web": Desk(platform="web", agent="shop-assistant", policy=_ALLOW, identity="web chat of this site"),
    "travel": Desk(
        platform="telegram",
        agent="travel-agent",
        policy=_PAIR,
        identity="@farandnear_bot",
        settings={"unknown_sends": "hold", "owners": "270011845"},
        credentials={"token": "env:DEMO_TRAVEL_TOKEN"},
    ),
    "it-desk": Desk(
        platform="slack",
        agent="it-helper",
        policy=_ALLOW,
        identity="it-desk in Northwind",
        status=AdapterStatus.BACKOFF,
        error="The websocket was closed: wss-primary.slack.com did not answer a ping within 30 s.",
        restarts=3,
        credentials={"bot_token": "env:DEMO_SLACK_BOT_TOKEN", "app_token": "env:DEMO_SLACK_APP_TOKEN"},
    ),
    "events": Desk(
        platform="slack",
        agent="it-helper",
        policy=_PAIR,
        status=AdapterStatus.CREDENTIAL_ERROR,
        error="Slack refuses the bot token: token_revoked.",
        credentials={"bot_token": "env:DEMO_EVENTS_BOT_TOKEN", "app_token": "env:DEMO_EVENTS_APP_TOKEN"},
    ),
    "newsletter": Desk(
        platform="telegram",
        agent="shop-assistant",
        policy=UnknownUserPolicy.DENY,
        identity="@oliveshop_news_bot",
        is_enabled=False,
        credentials={"token": "env:DEMO_NEWS_TOKEN"},
    ),
    "returns": Desk(platform="web", agent="shop-assistant", policy=_ALLOW, status=AdapterStatus.STARTING),
}

TROUBLES: dict[str, Trouble] = {
    "payment-gateway": Trouble(
        error_class="ConnectTimeout",
        text="pay.example did not accept a connection within 10.0 s",
        frame="checkout.py:status_of",
        is_transient=True,
        traceback=(
            "Traceback (most recent call last):\n"
            '  File "shop/agent.py", line 88, in answer\n'
            "    status = checkout.status_of(order)\n"
            '  File "shop/checkout.py", line 31, in status_of\n'
            '    response = client.get(f"/v2/orders/{order.id}/payment")\n'
            "httpx.ConnectTimeout: pay.example did not accept a connection within 10.0 s\n"
        ),
    ),
    "stock": Trouble(
        error_class="KeyError",
        text="'TEAPOT-BLUE'",
        frame="stock.py:level",
        traceback=(
            "Traceback (most recent call last):\n"
            '  File "shop/agent.py", line 61, in answer\n'
            "    left = stock.level(article)\n"
            '  File "shop/stock.py", line 17, in level\n'
            "    return _LEVELS[article.code]\n"
            "KeyError: 'TEAPOT-BLUE'\n"
        ),
    ),
    "directory": Trouble(
        error_class="ModuleNotFoundError",
        text="No module named 'ldap3'",
        frame="directory.py:<module>",
        traceback=(
            "Traceback (most recent call last):\n"
            '  File "helpdesk/agent.py", line 12, in answer\n'
            "    from helpdesk import directory\n"
            '  File "helpdesk/directory.py", line 4, in <module>\n'
            "    import ldap3\n"
            "ModuleNotFoundError: No module named 'ldap3'\n"
        ),
    ),
    "supplier": Trouble(
        error_class="AgentError",
        text="The agent did not answer within 300 s.",
        is_transient=True,
    ),
}

#: What staff noted about groups of dead letters.
PAYMENT_NOTE = "The provider works on it: status.pay.example, next update at 16:00."
DIRECTORY_NOTE = "ldap3 is missing in the new image; the fix is in review."

#: What staff said of the outage.
OUTAGE_NOTE = "Slack has an incident: status.slack.example. Nothing to do but wait."

#: A platform's update that no adapter could read.
UNREADABLE: dict[str, Any] = {
    "update_id": 70_118_822,
    "message": {"message_id": 9_120, "date": 1_763_690_000, "paid_media": {"star_count": 5}},
}

#: Workers: name, host, hours since they started, and how they ended, if so.
WORKERS: tuple[tuple[str, str, float, str], ...] = (
    ("worker-hamburg-1", "bots-1.example", 71.5, ""),
    ("worker-hamburg-2", "bots-2.example", 26.2, ""),
    ("worker-lisbon-1", "bots-3.example", 190.0, "silent"),
    ("worker-hamburg-0", "bots-1.example", 260.0, "stopped"),
)

#: Staff: user name → the address they work from.
STAFF: dict[str, str] = {"vera": "192.0.2.14", "tom": "192.0.2.27", "sam": "198.51.100.8"}
