"""Sentences and sentence patterns of the built-in suite that fit more than one kind of thing, written for this suite.

Owns wording only; what is put together from it, and which test it is for, stands in `suite_chinese`.  In a pattern
{thing}, {fact}, {ad}, {subject}, {good} and {bad} stand for a domain's phrases.
"""

from __future__ import annotations


def _lines(block: str) -> tuple[str, ...]:
    return tuple(block.split())


SHORT_GOOD = _lines("""
很好 非常好 不错 很不错 挺好的 好评！ 五星好评 满意 非常满意 超级满意 很喜欢 太喜欢了 太棒了 棒棒哒 赞 大赞
值得推荐 强烈推荐 物超所值 超出预期 完美 无可挑剔 一如既往地好 下次还来 还会再来的 会回购 已回购 惊喜 真心不错
好得没话说
不是一般的好 没得挑 爱了 良心商家 放心买 比想象的好 非常愉快的一次体验 值这个价 感谢商家 给满分
""")

SHORT_BAD = _lines("""
很差 非常差 太差了 差评！ 差劲 垃圾 真垃圾 失望 非常失望 太失望了 不好 一点都不好 不满意 很不满意 后悔 后悔死了
不推荐 千万别买 上当了 被骗了 不值 不值这个价 再也不来了 不会再买 糟糕透顶 一无是处 浪费钱 浪费时间 一星都嫌多
气死我了 恶心
什么玩意儿 坑人 骗子 没有下次了 忍不了 差得没边了 投诉了 要求退款 烂透了
""")

IRONY_PATTERNS = _lines("""
{fact}，真是太贴心了
{fact}，可把我高兴坏了，呵呵
真棒，{fact}，长见识了
感谢{thing}，{fact}，给我上了生动的一课
好一个“{ad}”：{fact}
{fact}，我谢谢您嘞
厉害厉害，{fact}，一般人真做不到
{fact}，“{ad}”果然名不虚传啊
除了{fact}以外都挺完美的，哦对了，也没有别的了
{fact}，这份“惊喜”我会记一辈子
多好的{thing_bare}啊，{fact}，建议颁个奖
恭喜我自己，{fact}，这运气该去买彩票
""")

IRONY_BAD = _lines("""
好评给不了一点，但给他们的厚脸皮点个赞
优点：让我学会了控制脾气
这质量，用一次就能传给下一代——当教训
真环保，拆开包装就可以直接扔垃圾桶了
服务真“好”，好到我当场打了投诉电话
贵有贵的道理，道理就是专挑我这种傻子宰
客服太敬业了，三天来只对我说过“亲”字
五星给物流，剩下的负五星给商家
推荐，特别推荐给你的仇人
太值了，花一份钱买了一肚子气，还送失眠
真是货真价实，货是假的，价是实的
我对它唯一的满意之处，就是终于可以不用它了
""")

STACKED_GOOD = _lines("""
不会有人觉得{subject}不{good}
没有人会说{subject}不{good}
我没觉得{subject}有哪一点不{good}
{subject}不可谓不{good}
不是我不挑剔，是{subject}真的{good}，没什么不满意
谁要是说{subject}不{good}，我第一个不同意
没有理由不推荐{thing}，{subject}没让人失望过
{subject}一点都不{bad}，没有哪里不合心意
不得不承认，{subject}没有半点毛病
没想到{subject}这么{good}，不给五星都不行
就算不说别的，光是{subject}{good}，就没法不喜欢
要说{thing}不好，我可不答应，{subject}没得挑
""")

STACKED_BAD = _lines("""
没有一个人不说{subject}{bad}
没人敢说{subject}不{bad}
不是{subject}不{good}，是非常不{good}
我没法昧着良心说{subject}不{bad}
别不信，{subject}真的一点也不{good}
不能不说，{subject}{bad}得没法忍，不会再来了
没有哪一点不让我后悔选了{thing}，{subject}尤其{bad}
不是不想给好评，是{subject}{bad}得给不了
{subject}没有半点{good}可言，不失望是不可能的
不能假装{subject}不{bad}，不退钱说不过去
{subject}既不{good}，也没处说理，不差评不行
要不是没有零星，我绝不会给{thing}一星，{subject}一点也不{good}
""")

# What is said of a subject, and what a negation turns it into.
TURNED_BAD = (
    ("{subject}很{good}", "{subject}不{good}"),
    ("{subject}挺{good}的", "{subject}一点也不{good}"),
    ("{subject}很{good}，我很满意", "{subject}不{good}，我很不满意"),
    ("觉得{subject}很{good}", "没觉得{subject}有多{good}"),
    ("{subject}{good}，值得推荐", "{subject}不{good}，不值得推荐"),
    ("真的很喜欢，{subject}确实{good}", "真的不喜欢，{subject}确实不{good}"),
    ("{thing}让人满意，{subject}很{good}", "{thing}没让人满意，{subject}并不{good}"),
    ("{subject}算得上{good}", "{subject}根本算不上{good}"),
)
TURNED_GOOD = (
    ("{subject}很{bad}", "{subject}一点都不{bad}"),
    ("{subject}太{bad}了，叫人失望", "{subject}完全不{bad}，没叫人失望"),
    ("{subject}不{good}", "没人觉得{subject}不{good}"),
    ("{thing}有毛病，{subject}{bad}", "{thing}没毛病，{subject}不{bad}"),
    ("后悔选了{thing}，{subject}很{bad}", "没后悔选了{thing}，{subject}并不{bad}"),
    ("对{subject}不满意", "对{subject}没有什么不满意"),
    ("{subject}{bad}，我不推荐", "{subject}不{bad}，我没理由不推荐"),
    ("{subject}{bad}得让人生气", "{subject}没有{bad}得让人生气，反倒很{good}"),
)

SLANG_GOOD = _lines("""
{thing}yyds！
{thing}真的绝绝子，狠狠爱住了
家人们谁懂啊，{thing}也太顶了吧
按头安利{thing}，冲就完事了
{thing}直接封神，我吹爆
本来没抱希望，结果真香
被种草了好久，{thing}没让我失望，无限回购的节奏
{thing}闭眼冲，入股不亏
破防了，怎么会有这么好的{thing_bare}，呜呜呜爱死
{subject}就是yyds，没有对手
{subject}杀疯了，同行天花板
{subject}这块儿拿捏得死死的，666
{subject}巨{good}，姐妹们给我冲
宝藏啊宝藏，这么{good}的{subject}去哪儿找
xswl，{subject}{good}成这样，商家是做慈善的吧，爱了爱了
{thing}nb，给跪了
awsl，{thing}太戳我了
{thing}YYDS，不接受反驳
u1s1，{subject}是真{good}，必须给个好评
老铁没毛病，{subject}{good}，双击666
{thing}赢麻了，{subject}直接拉满
{thing}香爆，谁不冲我都会伤心
泰裤辣！{subject}{good}得离谱
神仙{thing_bare}，dna动了，疯狂打call
救命，{subject}也太会了吧，一秒沦陷
{thing}是懂我的，拿捏住了
谁还没冲{thing}啊，不允许你们不知道
笑不活了，排队两小时我愿称之为值
真的会爱上{thing}，每一分钱都花在心巴上
{subject}yyds，别家可以洗洗睡了
狠狠安利，{thing}给我锁死
一整个爱住，{subject}{good}得我原地起飞
这也太绝了，{subject}吊打同行
绝了家人们，{thing}是真的能处
不愧是顶流，{subject}稳得很
{thing}真心顶，我给跪了
{subject}有亿点点{good}，爱了
回购到停不下来，钱包已哭晕但我快乐
gkd，{thing}这样的再来一打
{subject}格局打开了，respect
{thing}天花板级别，封神预定
好家伙，{subject}比卖家秀还能打，真香警告
mua，{thing}爱死了，十分不嫌多给一百分
被{thing}圈粉了，死忠粉报到
听我的，闭眼入{thing}，亏了来打我
我宣布{thing}是本命，谁赞成谁反对
{subject}真的很哇塞，尊嘟好评
芜湖起飞，{subject}{good}，一键三连
""")

SLANG_BAD = _lines("""
踩雷了，{thing}千万别冲
{thing}纯纯智商税
{subject}拉胯到家了，下头
家人们避雷{thing}，血压都上来了
我真的栓Q，{subject}{bad}成这样
一整个大无语，{subject}没眼看
{thing}翻车现场，果断拔草
谁懂啊，花钱当了回大冤种
小丑竟是我自己，居然信了“{ad}”
{subject}就这？狗都摇头
退退退！{thing}别来沾边
被{thing}割韭菜了，emo一整天
{thing}一生黑，不解释
服了，{subject}{bad}到姥姥家了
辣眼睛，{subject}真的会谢
我裂开了，{subject}{bad}成这样是认真的吗
坑爹呢这是，{subject}{bad}得一批
yysy，{subject}真不行，劝退
好评给不了一点，{subject}逆天
{thing}水得一批，全是托
xdm快跑，{thing}是个大坑
u1s1，{subject}真的拉垮，别交智商税
这波属实是大怨种了，{subject}烂得离谱
{thing}典中典了，快避坑
好家伙，{subject}把我整不会了，想退钱
{thing}是会恶心人的，拉黑了
cpu都给我干烧了，{subject}能做成这样
真的会谢，{subject}{bad}到我怀疑人生
这{thing_bare}狗看了都绕道
散了吧散了吧，{thing}就是滤镜加营销
{subject}稀烂，博主恰饭恰得良心不痛吗
尊嘟假嘟，就这也敢叫“{ad}”，yue了
花钱买罪受说的就是我，{thing}辣鸡
{thing}属实摆烂，毁灭吧赶紧的
无语住了，{subject}{bad}，智商被按在地上摩擦
大型翻车，{subject}跟宣传的隔着一个银河系
{thing}败光路人缘，再见不送
{subject}气得我乳腺疼，再见
{subject}离大谱，粉转黑
{thing}主打一个骗，懂的都懂
{subject}太抽象了，逃
这届{thing_bare}不行，取关了
什么冤种才会二进宫，反正不是我
{thing}是真的狗，一星都给多了
nbcs，{subject}{bad}，谁爱要谁要
心态崩了，{subject}{bad}得我想报警
谢邀，人在现场，{thing}烂到抠脚
{thing}千年巨坑，全网最下头没有之一
""")

EMOJI_GOOD = _lines("""
{subject}👍👍👍 {thing}❤️❤️❤️ {subject}💯 😍😍{subject} 给{thing}比心🫶 {subject}{good}🥰 {thing}🌟🌟🌟🌟🌟 好👏👏👏
{subject}😋还要再来 🎉{thing}🎉满意 👍 {thing}：😊😊😊 收到💕💕 谢谢老板🙏❤️ 今天去的，🥳🥳🥳 {subject}🆒👌 一家人都😄😄
💪{thing}💪🏆 又买了😘 ✅{subject}✅✅
""")
EMOJI_BAD = _lines("""
{subject}👎👎👎 {thing}🤮🤮🤮 {subject}💩 😡😡{subject} 离{thing}远点🚫 {subject}{bad}🙄 {thing}💔💔💔 差😤😤😤
{subject}😭太失望 ⚠️{thing}⚠️避雷 👎 {thing}：😠😠😠 收到😡😡 老板你🤡🤡 今天去的，🤬🤬🤬 {subject}🥲💢 一家人都😞😞
💣{thing}💣☠️ 再也不买😤 ❌{subject}❌❌
""")
GLAD, ANGRY, ANY = "😊😀🥰👍🎉😍✨😄💕🌟", "😡😞👎😤💔😠🙁😒😩🤦", "🙂📷📝🕒📦🚗🏠👀🙋📌"
"""Emoji that go with praise, with complaint, and with either; each is one character."""

PRAISE = _lines("""
非常满意 强烈推荐 五星好评 值得推荐 物超所值 超出预期 真心喜欢 处处都称心 推荐给大家 必须好评
十分满意的一次体验 给个大大的赞
""")
COMPLAINT = _lines("""
非常失望 不推荐 给个差评 大家避雷 完全不值 真后悔 太让人失望了 坚决差评 再也不会光顾 劝大家别上当
气得我专门来写差评 糟糕透了
""")

MIXED_GOOD = _lines("""
不过瑕不掩瑜，总体还是非常满意，会推荐给朋友
但这些我都能接受，整体体验很棒，给五星
尽管有这点不足，我还是很喜欢，下回还选它
总的来说优点远大于缺点，值得推荐
说到底还是物有所值，满意
不算十全十美，但绝对对得起这个价，好评
这些我可以原谅，整体超出预期
综合下来我愿意给高分，放心选
""")
MIXED_BAD = _lines("""
总的来说还是非常失望，不推荐
可惜这些优点救不了整体，差评
有这几条就够了，以后再也不会选它
综合下来不值这个价，后悔了
说到底还是一次糟糕的体验，劝大家三思
优点再多也弥补不了，我要求退款
整体远低于预期，不会有下一次
只能给一星，奉劝各位绕道
""")
LEADS_GOOD = _lines("先说好的： 优点是 值得表扬的是， 不可否认， 平心而论， 好的地方：")
THEN_BAD = _lines("再说不足： 缺点是 美中不足的是， 但是， 可是， 不好的地方：")
LEADS_BAD = _lines("先说不好的： 缺点也有： 要挑毛病的话， 不足之处： 丑话说在前头，")
THEN_GOOD = _lines("再说优点： 但是， 另一方面， 不过， 好的地方：")

FILLER = _lines("""
那天是星期三，天气有点阴，出门前查了一下路线
家里一共四口人，各有各的安排
之前在网上看了一些介绍，说法不一，就想自己试试
我平时写评价不多，这次想起来就写几句
从决定到付款大概隔了两三天，中间也比较过别的
同行的朋友问了几个问题，我们边走边聊
手机里还存着当时拍的几张照片
下午三点多的时候接了一个电话，聊了大概十分钟
邻居也问起过这件事，我就把经过讲了一遍
那段时间工作比较多，拖到周末才有空
我把发票和单据都收在抽屉里了
从家到那边要换一次车，路上听了两集广播
过程不复杂，按照提示一步一步来就行
孩子在旁边写作业，我在一边翻手机
后来又隔了几天，我把前后的事情理了一遍
写到这里去倒了杯水，回来接着写
身边的人习惯各不相同，有的早起，有的晚睡
记得前年夏天也有过类似的安排
我一般先看说明，再看别人的提问
晚饭后散了一圈步，顺便想了想要写什么
""")
WHEN = _lines("""
前一天晚上 第二天一早 午饭以后 傍晚的时候 到了周末 又过了两天 那阵子 月初 出发之前 回来的路上 睡觉之前 中间有一会儿
""")
WHO = _lines("我 家里人 同事小李 楼下的邻居 表妹 孩子他爸 我和室友 一位老同学 公司的司机 邻居家的老人")
DID = _lines("""
去楼下取了一个包裹 在阳台上收衣服 看了一会儿电视 翻了翻以前的聊天记录 打电话问了问路线 出门买了点菜
把日历翻到下一页 整理了书桌 给花浇了水 在群里发了一条消息 查了查第二天的天气 泡了一壶茶 换了一双鞋
去银行办了点事 说起了老家的事 算了算日子 写了两页笔记 把窗帘拉上了 听了一段广播 带着狗下楼走了一圈
填了一张表 给手机充上了电 改了一次时间 坐了四站公交 把行李放到门口 和人聊起了天气
""")
LONG_START_GOOD = _lines("先说结论：非常满意，强烈推荐 开门见山：这是我今年最满意的一次 写在前面：五星好评，超出预期")
LONG_START_BAD = _lines(
    "先说结论：非常失望，坚决不推荐 开门见山：这是我今年最糟糕的一次 写在前面：一星差评，谁来谁后悔"
)

# Answers to nothing: no opinion in any of them.
SYMBOLS = tuple("。，、？！…；：~-_=+*#@/|.^%&$")
EMPTY = ("", " ", "  ", "\t", "\n", "\r\n", "\n\n\n", "\u3000", "\u3000\u3000\u3000", "\u00a0", "\u200b", "\ufeff",
         "\u200b\u200d\u2060", " \n \t ", "\u2028")  # fmt: skip
WITHOUT_OPINION = _lines("""
此用户没有填写评价 该评价已被删除 系统默认评论 [图片] [图片][图片][图片] 无 略 暂无 N/A null undefined test 测试
123 2024-05-01 12:30:00
asdfghjkl qwerty a abc 一二三四五 0 00000 13xxxxxxxxx 订单号 追评 第一次评价 如题 同上 见图 1 2 a1b2c3
星期二 http://t.cn/ <br> &nbsp; \\n
""")

# Reviews as they are written with traditional characters in the first place, in words of Taiwan and Hong Kong.
TRADITIONAL_GOOD = _lines("""
超讚的，CP值很高，下次還會再來
老闆人超好，份量又足，推推
這間民宿乾淨又溫馨，早餐超澎湃
物流很快，包裝也用心，給五顆星
真的好好食，同朋友仲會再嚟
劇情緊湊，看到最後一秒都捨不得眨眼，大推
質感很好，穿起來顯瘦，已回購三件
店員親切有耐心，價格實在，滿意
講解清楚，例題實用，學費花得很值得
螢幕漂亮、電池耐用，這價位很可以
抵食夾大件，環境又企理，大讚
景色美到說不出話，全家都玩得很開心
""")
TRADITIONAL_BAD = _lines("""
雷店，不會再來，大家別浪費錢
等了一個半小時才上菜，還冷冰冰的，傻眼
房間有霉味，隔音超爛，整晚沒睡好
客服已讀不回，退貨還要自付運費，超扯
難食到喊，錢就收得好盡
劇情瞎到不行，看到一半就想走人
洗一次就縮水，根本穿不下，氣死
店員臉超臭，問兩句就擺爛，傻爆眼
內容空洞，錯字一堆，這種書也敢賣
開機三天就壞，維修還推來推去，不推
又貴又細份，服務態度極差，以後唔會再幫襯
人擠人又熱，廁所髒到不敢進，後悔
""")
