"""The commonest function words of a few languages: what no topic is about. Our own lists, short on purpose."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOP = {
    "en": _words(
        "a able about above across actually after again all almost already also although always am an and another "
        "any anyone anything anyway are around as ask at away back basically be because been before being below "
        "between big bit both but by call came can cannot cent come could couple day days did different do does "
        "doing done down each either else end enough essentially even ever every everyone everything few first for "
        "fourth from further get gets getting give go goes going gone gonna good got great guess had has have "
        "having he hello her here hers hey hi him his hmm how however hundred i if in instead into is it its "
        "itself just keep kept kind know last let like little look looks lot made make many may maybe me mean "
        "means might mine more morning most much must my myself need needs never new next no nobody none nor not "
        "nothing now of off oh ok okay old on once one only or other our ours out over own people per perhaps "
        "please pretty put quite rather really right said same say says second see seem seen she should since "
        "small so some somebody someone something somewhere soon start started starting still such sure take than "
        "thank thanks that the their them themselves then there these they thing things think third this those "
        "though thousand through till time times to today together tomorrow too took toward tried try two uh um "
        "under until up upon us use used using very via want wanted wants was way we week well went were what "
        "whatever when where whether which while who whole whom whose why will with within without would yeah yep "
        "yes yesterday yet you your yours yourself"
    ),
    "fr": _words(
        "alors après au aucun aussi autre avant avec avoir bien c'est car ce ceci cela celle celui ces cette ceux "
        "chaque comme comment dans de des deux doit donc dont du elle elles en encore est et eu faire fait fois "
        "font ici il ils je jusqu la le les leur leurs lorsque lui là ma mais me moins mon même ne ni non nos "
        "notre nous on ont ou où par parce pas peu peut plus pour pourquoi pouvez puis quand que quel quelle qui "
        "quoi sa sans se sera ses si soit son sont sous suis sur ta te tes ton tous tout toute toutes trop très tu "
        "un une va vers voir vos votre vous y à ça été être"
    ),
    "de": _words(
        "aber alle als also am an auch auf aus bei bin bis da damit dann das dass dein dem den der des die dies "
        "diese doch dort du durch ein eine einem einen einer es für ganz gibt hab habe haben hat hier hin ich ihm "
        "ihn ihr im in ist ja jetzt kann kein keine man mehr mein mich mir mit muss nach nicht noch nun nur ob "
        "oder ohne sehr sein seine sich sie sind so soll um und uns unter vom von vor war warum was weil wenn wer "
        "wie wieder will wir wird wo zu zum zur über"
    ),
    "es": _words(
        "a al algo ante antes aquí así aunque cada como con cual cuando de del desde donde dos el ella ellos en "
        "entonces entre era es esa ese eso esta este esto está están fue ha hasta hay la las le les lo los me mi "
        "mismo mucho muy más nada ni no nos nosotros o otra otro para pero poco por porque puede que quien qué se "
        "ser si sin sobre son su sus sí también tan te tiene todo todos tu un una uno unos usted y ya yo"
    ),
    "zh": _words(
        "一个 不是 个是 了一 什么 他们 们的 但是 你们 可以 因为 如果 就是 我们 "
        "所以 是一 是我 没有 然后 现在 的是 自己 还有 这个 这些 这样 那个 那些"
    ),
}
